//! For kernels that hand out no request twice (before Linux 6.9): requests pass through a
//! [journal](sysbox_kernel::fuse::journal) on their way to the FUSE library.
//!
//! The library reads requests into a memory of its own, which dies with the daemon. So it is given a socket
//! instead of the device, and threads here carry requests and answers between the two. That
//! costs a few microseconds a request, which is why newer kernels are asked to
//! [send again](sysbox_kernel::fuse::resend) instead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use sysbox_kernel::fuse::journal::{Journal, unique};

/// Longest answer: the kernel asks for at most 128 KiB at once.
const LONGEST_ANSWER: usize = 256 << 10;

/// What stands between the device and the library.
#[derive(Debug)]
pub struct Relay {
    /// The kernel's side.
    pub device: OwnedFd,
    /// Our end of the socket that the library takes for the device.
    pub library: OwnedFd,
    /// Requests on their way.
    pub journal: Journal,
    /// What a dead daemon had not answered.
    pub left: Vec<Vec<u8>>,
}

/// The two ends of a socket that keeps messages apart, as the device does.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Relay {
    /// Starts to carry. When the file system is gone, the library finds its socket closed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self) -> io::Result<()> {
        let relay = Arc::new(self);
        let (requests, answers, notices) = (relay.clone(), relay.clone(), relay);
        let (sender, receiver) = channel();
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        thread("requests").spawn(move || {
            let error = requests.carry_requests();
            tracing::debug!("the FUSE device: {error:?}");
            let _ = shutdown(&requests.library, Shutdown::Both);
        })?;
        thread("answers").spawn(move || answers.carry_answers(&sender))?;
        thread("notices").spawn(move || notices.carry_notices(&receiver))?;
        Ok(())
    }

    fn carry_requests(&self) -> io::Result<()> {
        for request in &self.left {
            rustix::io::write(&self.library, request)?;
        }
        loop {
            let request = self.journal.receive(self.device.as_fd())?;
            rustix::io::write(&self.library, &request)?;
        }
    }

    fn carry_answers(&self, notices: &Sender<Vec<u8>>) {
        let mut buffer = vec![0; LONGEST_ANSWER];
        while let Ok(length @ 1..) = rustix::io::read(&self.library, &mut buffer) {
            let answer = &buffer[..length];
            match unique(answer) {
                None => {}
                // Not an answer but a notice. The kernel may keep its sender waiting for an answer.
                Some(0) => {
                    let _ = notices.send(answer.to_vec());
                }
                Some(number) => {
                    // It fails if a dead daemon has answered already, or the caller is gone.
                    let _ = rustix::io::write(&self.device, answer);
                    self.journal.answered(number);
                }
            }
        }
    }

    fn carry_notices(&self, notices: &Receiver<Vec<u8>>) {
        for notice in notices {
            // It fails if the kernel does not know what it should forget.
            let _ = rustix::io::write(&self.device, &notice);
        }
    }
}
