//! What is counted while the manager works. Read by [`api`](crate::api).

use std::time::Duration;

use sysbox_daemon::metrics::{Counter, Histogram};

/// The trapped system calls that are told apart.
pub const CALLS: [&str; 6] = ["mount", "umount", "fsopen", "mknod", "sysinfo", "other"];

/// Each of them, from the taking of the request to the answer.
pub static TRAPPED: [Histogram; CALLS.len()] = [const { Histogram::new() }; CALLS.len()];
/// Trapped calls that failed because the broker could not do what it should.
pub static BROKEN: Counter = Counter::new();
/// Registrations, from the request to the answer.
pub static REGISTER: Histogram = Histogram::new();
/// Calls of runtimes that were refused.
pub static REFUSED: Counter = Counter::new();

/// Counts a trapped call.
pub fn trapped(call: &str, took: Duration) {
    if let Some(n) = CALLS.iter().position(|name| *name == call) {
        TRAPPED[n].observe(took);
    }
}
