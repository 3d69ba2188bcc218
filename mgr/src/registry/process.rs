//! Naming a process so that a reused pid is not taken for it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process: pid and the time at which it started, which together are unique until a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the pid namespace of the manager.
    pub pid: i32,
    /// Clock ticks after boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Process {
    /// The process that has `pid` now.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        let start_time = start_time(&stat).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat cannot be read"))
        })?;
        Ok(Self { pid, start_time })
    }

    /// A pidfd of it, or `None` if it is dead.
    pub fn open(&self) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after the pidfd holds it: this is the process that we mean, or it is gone.
        (Self::of(self.pid).ok()? == *self && !is_dead(pidfd.as_fd())).then_some(pidfd)
    }
}

/// Field 22 of a /proc/PID/stat. The second field, the name, may hold anything, parentheses too.
fn start_time(stat: &[u8]) -> Option<u64> {
    let after_name = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(after_name + 1..)?).ok()?;
    // The state (field 3) comes first after the name.
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// Whether the process of a pidfd has ended.
pub fn is_dead(pidfd: BorrowedFd<'_>) -> bool {
    wait_dead(pidfd, Duration::ZERO)
}

/// Waits until the process of a pidfd has ended, at most for `patience`; says whether it has.
pub fn wait_dead(pidfd: BorrowedFd<'_>, patience: Duration) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec::try_from(patience).ok();
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref())).is_ok_and(|ready| ready > 0)
}

/// The pid that a pidfd stands for, from /proc/self/fdinfo; `None` if it is no pidfd or reaped.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    fdinfo(pidfd, "Pid:").filter(|pid| *pid > 0)
}

/// A number out of /proc/self/fdinfo/FD.
pub fn fdinfo(fd: BorrowedFd<'_>, key: &str) -> Option<i32> {
    use std::os::fd::AsRawFd as _;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}

/// Identifies this boot of the machine.
pub fn boot_id() -> String {
    // In a test's mount namespace /proc is always there; without it nothing else would work.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_does_not_confuse() {
        let stat = b"7 (a) b) S 1 7 7 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4711 22 33";
        assert_eq!(start_time(stat), Some(4711));
        assert_eq!(start_time(b"7 (a"), None);
    }

    #[test]
    fn a_process_is_recognised_until_it_is_dead() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        let pidfd = process.open().unwrap();
        assert_eq!(pid_of(pidfd.as_fd()), Some(process.pid));
        assert!(Process { start_time: process.start_time + 1, ..process }.open().is_none());
        assert!(!is_dead(pidfd.as_fd()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_dead(pidfd.as_fd()) && process.open().is_none());
    }
}
