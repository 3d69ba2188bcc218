//! systemd's file descriptor store, sd_pid_notify_with_fds(3).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

use super::Named;

/// How long systemd may take to read what was sent to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many descriptors systemd keeps for this service; `None` if none (`$FDSTORE`, systemd 254).
pub fn capacity() -> Option<usize> {
    std::env::var_os("NOTIFY_SOCKET")?;
    let capacity = std::env::var("FDSTORE").ok()?.parse().ok()?;
    (capacity > 0).then_some(capacity)
}

/// What this service had systemd keep, as duplicates that are closed on exec.
pub fn passed() -> Vec<Named> {
    all_passed().into_iter().filter(|(name, _)| !is_socket(name)).collect()
}

/// The sockets that systemd listens on for this service (socket activation), as duplicates that are
/// closed on exec. Their name is that of the unit, unless `FileDescriptorName=` says another.
pub fn sockets() -> Vec<Named> {
    all_passed().into_iter().filter(|(name, _)| is_socket(name)).collect()
}

fn is_socket(name: &str) -> bool {
    name.ends_with(".socket")
}

fn all_passed() -> Vec<Named> {
    let Ok(passed) = sd_notify::listen_fds_with_names() else {
        return Vec::new();
    };
    let own = |number| {
        let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
        pidfd_getfd(this_process.as_fd(), number, PidfdGetfdFlags::empty())
    };
    passed.filter_map(|(number, name)| Some((name, own(number).ok()?))).collect()
}

/// Gives a descriptor to systemd.
pub fn keep(name: &str, fd: &impl AsFd) -> io::Result<()> {
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        // Without this systemd would watch the descriptor, and every request would wake it up.
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, &[fd.as_fd()])
}

/// Waits until systemd has read everything that was sent so far (`BARRIER=1`, systemd 246).
pub fn settle() -> io::Result<()> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[write.as_fd()])?;
    drop(write);
    // systemd answers by closing its end.
    let timeout = Timespec::try_from(PATIENCE).ok();
    let mut closed = [PollFd::new(&read, PollFlags::empty())];
    match rustix::io::retry_on_intr(|| poll(&mut closed, timeout.as_ref()))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "systemd does not read its messages")),
        _ => Ok(()),
    }
}

/// Has systemd let go of a descriptor.
pub fn release(name: &str) {
    // If systemd is gone, so is its store.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}
