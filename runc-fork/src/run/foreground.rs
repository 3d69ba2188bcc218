//! Staying in front of a process: signals are passed on to it, its exit code becomes ours.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use sysbox_kernel::process::{send_signal, wait_pidfd};

/// Waits for a child, passing on every signal that can be meant for it.
pub fn wait(process: &OwnedFd) -> Result<i32> {
    let mut signals = SigSet::all();
    // Ours to handle: children, and what the kernel sends for faults.
    for own in [Signal::SIGCHLD, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
        signals.remove(own);
    }
    signals.thread_block().context("block signals")?;
    let received = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("make a signalfd")?;
    loop {
        let mut ready = [
            PollFd::new(process, PollFlags::IN),
            PollFd::from_borrowed_fd(received.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut ready, None)).context("wait for the process")?;
        while let Ok(Some(info)) = received.read_signal() {
            // The process may have ended meanwhile.
            let _ = send_signal(process, i32::try_from(info.ssi_signo)?);
        }
        if ready[0].revents().contains(PollFlags::IN) {
            return wait_pidfd(process).context("wait for the process");
        }
    }
}
