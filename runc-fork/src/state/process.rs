//! Recognising a process again after its pid may have been given to another.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A process, by more than its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id on the host.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks after boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id` when it was seen: pids begin anew after a reboot.
    pub boot_id: String,
}

impl Identity {
    /// Of a process that runs now.
    pub fn of(pid: i32) -> Result<Self> {
        let (_, start_time) =
            stat(pid).with_context(|| format!("read the start time of process {pid}"))?;
        Ok(Self { pid, start_time, boot_id: boot_id() })
    }
}

/// Whether the process still runs (a zombie does not).
pub fn is_alive(identity: &Identity) -> bool {
    stat(identity.pid).is_some_and(|(state, start_time)| {
        !matches!(state, 'Z' | 'X')
            && start_time == identity.start_time
            && boot_id() == identity.boot_id
    })
}

fn stat(pid: i32) -> Option<(char, u64)> {
    if pid <= 0 {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, also parentheses.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alive_and_not() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(is_alive(&me));
        assert!(!is_alive(&Identity { start_time: me.start_time + 1, ..me.clone() }));
        assert!(!is_alive(&Identity { boot_id: "other".into(), ..me }));
    }
}
