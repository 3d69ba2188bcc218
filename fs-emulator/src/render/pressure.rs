//! `/proc/pressure/{cpu,memory,io,irq}`.

use crate::view::View;

/// The file of the container's own cgroup, which has the format of the machine's. It is cgroup v2's
/// even where the controllers are v1's.
pub fn pressure(view: &View, kind: &str) -> String {
    let unified = view.unified();
    unified
        .first()
        .and_then(|own| own.text(&format!("{kind}.pressure")))
        .unwrap_or_else(|| no_pressure(kind))
}

/// A machine on which nobody ever waited.
fn no_pressure(kind: &str) -> String {
    let lines: &[&str] = if kind == "irq" { &["full"] } else { &["some", "full"] };
    let line = |name| format!("{name} avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
    lines.iter().map(line).collect()
}
