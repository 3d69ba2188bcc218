//! `/sys/devices/system/cpu/{online,present,enabled,offline}`.
//!
//! CPUs keep the host's numbers: those are what sched_getaffinity(2), `Cpus_allowed_list` and
//! getcpu(2) say, which nobody can change. The container looks like a machine of which the other
//! CPUs are switched off.

use crate::view::View;
use crate::view::host::parse_cpu_list;

/// The visible CPUs as the kernel's list: all that the container has are online.
pub fn online(view: &View) -> String {
    list(&view.visible_cpus().cpus)
}

/// The CPUs that the kernel could have, without those of the container.
pub fn offline(view: &View) -> String {
    let visible = view.visible_cpus().cpus;
    let mut cpus = parse_cpu_list(&view.host.text("sys/devices/system/cpu/possible"));
    cpus.retain(|cpu| !visible.contains(cpu));
    list(&cpus)
}

/// Ascending numbers as the kernel prints them, e.g. "0-3,8".
fn list(cpus: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let range = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn lists_are_the_kernels() {
        assert_eq!(list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8\n");
        assert_eq!(list(&[3]), "3\n");
        assert_eq!(list(&[]), "\n");
    }
}
