//! The runtime process at the other end of a connection.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use sysbox_ipc::Connection;

use crate::manager::Runtime;
use crate::registry::{Process, process};

/// A dying process closes its descriptors before its pidfd says that it is dead; and a runtime that
/// failed may still be removing what it made.
const ENDING: Duration = Duration::from_secs(2);

/// Who made the connection.
#[derive(Debug)]
pub struct Peer {
    process: Option<Process>,
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// The peer of a connection that was just accepted.
    pub fn of(connection: &Connection) -> Self {
        let pid = getsockopt(&connection.as_fd(), PeerCredentials).map(|c| c.pid()).unwrap_or(0);
        // 0: it is in a pid namespace that we do not see.
        let process = (pid > 0).then(|| Process::of(pid).ok()).flatten();
        let pidfd = process.and_then(|process| process.open());
        Self { process, pidfd }
    }

    /// The process, if it was seen alive.
    pub fn process(&self) -> Option<Process> {
        self.process
    }

    /// What has become of it, after the connection has closed.
    pub fn fate(&self) -> Runtime {
        match &self.pidfd {
            Some(pidfd) if !process::wait_dead(pidfd.as_fd(), ENDING) => Runtime::Alive,
            _ => Runtime::Dead,
        }
    }
}
