//! `/proc/uptime`.

use crate::view::View;
use crate::view::host::SECOND;

/// Time since the container was created, and the time that its CPUs idled, in seconds.
///
/// A time namespace makes the first number right natively, but not the second.
pub fn uptime(view: &View) -> String {
    let idle = view.cpu_times(&view.visible_cpus()).total.idle * 1000;
    format!("{} {}\n", seconds(view.uptime()), seconds(idle))
}

fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:02}", nanoseconds / SECOND, nanoseconds % SECOND / 10_000_000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn hundredths_are_cut() {
        assert_eq!(super::seconds(12_059_999_999), "12.05");
    }
}
