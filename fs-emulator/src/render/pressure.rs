//! `/proc/pressure/{cpu,memory,io,irq}`.

use crate::view::View;

/// What the container's tasks lost by waiting for CPUs.
pub fn cpu(view: &View) -> String {
    pressure(view, "cpu")
}

/// What they lost by waiting for memory.
pub fn memory(view: &View) -> String {
    pressure(view, "memory")
}

/// What they lost by waiting for disks.
pub fn io(view: &View) -> String {
    pressure(view, "io")
}

/// What they lost to interrupts.
pub fn irq(view: &View) -> String {
    pressure(view, "irq")
}

/// The file of the container's own cgroup, which has the format of the machine's. It is cgroup v2's
/// even where the controllers are v1's.
fn pressure(view: &View, kind: &str) -> String {
    let own = view.unified().into_iter().next();
    own.and_then(|own| own.text(&format!("{kind}.pressure"))).unwrap_or_else(|| no_pressure(kind))
}

/// A machine on which nobody ever waited.
fn no_pressure(kind: &str) -> String {
    let lines: &[&str] = if kind == "irq" { &["full"] } else { &["some", "full"] };
    let line = |name| format!("{name} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
    lines.iter().map(line).collect()
}
