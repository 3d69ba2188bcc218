//! Staying in front of a process: signals are passed on to it, its terminal is connected to ours,
//! its exit code becomes ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use sysbox_kernel::process::{send_signal, wait_pidfd};

/// Waits for a child, passing on every signal that can be meant for it. `master` is its terminal.
pub fn wait(process: &OwnedFd, master: Option<OwnedFd>) -> Result<i32> {
    let mut signals = SigSet::all();
    // Ours to handle: children, and what the kernel sends for faults.
    for own in [Signal::SIGCHLD, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
        signals.remove(own);
    }
    signals.thread_block().context("block signals")?;
    let received = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("make a signalfd")?;
    let mut proxy = master.map(Proxy::new);
    let code = loop {
        let mut ready = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::from_borrowed_fd(received.as_fd(), PollFlags::IN),
        ];
        if let Some(proxy) = &proxy {
            ready.extend(proxy.watched());
        }
        rustix::io::retry_on_intr(|| poll(&mut ready, None)).context("wait for the process")?;
        let happened: Vec<_> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(ready);
        while let Ok(Some(info)) = received.read_signal() {
            let signal = i32::try_from(info.ssi_signo)?;
            match &proxy {
                Some(proxy) if signal == Signal::SIGWINCH as i32 => proxy.resize(),
                // The process may have ended meanwhile.
                _ => drop(send_signal(process, signal)),
            }
        }
        if let Some(proxy) = &mut proxy {
            proxy.carry(happened[2], happened.get(3) == Some(&true));
        }
        if happened[0] {
            break wait_pidfd(process).context("wait for the process")?;
        }
    };
    if let Some(proxy) = &mut proxy {
        proxy.drain();
    }
    Ok(code)
}

/// Connects the terminal of the process with our standard input and output. If ours is a terminal,
/// too, it is raw as long as this exists: the other one edits lines and makes signals of keys. Lines get
/// their carriage returns from our terminal (see `Terminal::deliver`).
struct Proxy {
    master: OwnedFd,
    /// The settings to go back to.
    restore: Option<Termios>,
    /// The process still reads, and we still have something for it.
    input: bool,
    output: bool,
}

impl Proxy {
    fn new(master: OwnedFd) -> Self {
        let stdin = rustix::stdio::stdin();
        let restore = tcgetattr(stdin).ok();
        if let Some(before) = &restore {
            let mut raw = before.clone();
            raw.make_raw();
            raw.output_modes |= OutputModes::OPOST;
            // Without it the terminal echoes twice, but works.
            let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        }
        let proxy = Self { master, restore, input: true, output: true };
        proxy.resize();
        proxy
    }

    /// Gives the inner terminal the size of ours.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// The master first, then our input.
    fn watched(&self) -> Vec<PollFd<'_>> {
        let events = if self.output { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.master, events)];
        // A closed terminal reports a hang-up whatever is asked for: it is then not watched.
        if !self.output {
            fds[0] = PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::empty());
        }
        if self.input {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        fds
    }

    fn carry(&mut self, from_process: bool, from_us: bool) {
        if from_process && self.output {
            // EIO: the last process has closed the terminal.
            self.output = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
        if from_us && self.input && !copy(rustix::stdio::stdin(), self.master.as_fd()) {
            self.input = false;
            // Our input has ended: the program sees the end of its own.
            const END_OF_TRANSMISSION: u8 = 4;
            if self.restore.is_none() {
                let _ = rustix::io::write(&self.master, &[END_OF_TRANSMISSION]);
            }
        }
    }

    /// What the process wrote before its end and nobody has read yet.
    fn drain(&mut self) {
        let now = rustix::event::Timespec::default();
        while self.output {
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            if !matches!(poll(&mut ready, Some(&now)), Ok(n) if n > 0) {
                return;
            }
            self.output = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(before) = &self.restore {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Copies what is there; false at the end of the input, or when nobody takes it.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 16 * 1024];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    write_all(to, &buffer[..count]).is_ok()
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(to, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}
