//! `/proc/stat`.

use std::fmt::Write;

use super::TICK;
use crate::view::View;
use crate::view::cpu::CpuTime;
use crate::view::host::{SECOND, boot_wall_time};

/// CPU time of the container on its visible CPUs, its start, its processes. Interrupts and context
/// switches are not counted for cgroups: 0.
pub fn stat(view: &View) -> String {
    let times = view.cpu_times(&view.visible_cpus());
    let tasks = view.container.load.lock().unwrap_or_else(|e| e.into_inner()).tasks();
    let btime = (boot_wall_time() + view.container.record.created_boottime_ns) / SECOND;
    let forks = view.container.last_pid(view.reader_tids().get(1).copied().unwrap_or(0));
    let mut text = String::with_capacity(512);
    // The sum has a second space.
    put(&mut text, "cpu ", times.total);
    for (cpu, time) in &times.cpus {
        put(&mut text, &format!("cpu{cpu}"), *time);
    }
    write!(
        text,
        "intr 0\nctxt 0\nbtime {btime}\nprocesses {forks}\nprocs_running {}\nprocs_blocked {}\n\
         softirq 0 0 0 0 0 0 0 0 0 0 0\n",
        // The reader itself runs.
        tasks.running.max(1),
        tasks.blocked,
    )
    .expect("writing to a string");
    text
}

/// A line of CPU time in clock ticks: user nice system idle iowait irq softirq steal guest
/// guest_nice.
fn put(text: &mut String, name: &str, time: CpuTime) {
    let [user, nice, system, idle] =
        [time.user, time.nice, time.system, time.idle].map(|microseconds| microseconds / TICK);
    writeln!(text, "{name} {user} {nice} {system} {idle} 0 0 0 0 0 0")
        .expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lines_are_in_ticks() {
        let mut text = String::new();
        let time = CpuTime { user: 1_234_567, nice: 9_999, system: 20_000, idle: 5_000_000 };
        put(&mut text, "cpu0", time);
        assert_eq!(text, "cpu0 123 0 2 500 0 0 0 0 0 0\n");
    }
}
