//! The process with which a scope is started.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use sysbox_kernel::process::{
    CloneFlags, Fork, clone_process, close_all_but, exit_now, wait_pidfd,
};

/// Keeps a new systemd scope from vanishing until the container's first process is in its cgroup.
///
/// systemd makes a scope for processes that exist, and drops it when the last one has ended. The
/// container's first process cannot be the one: it is *born* in the cgroup, which has to have its limits
/// by then. So the scope is started with this child of ours, which does nothing.
///
/// Hold it until the container's process lives, then drop it: that ends the child and waits for it. If
/// the runtime dies first the child ends too, and systemd removes the scope.
///
/// With the cgroupfs driver there is no child.
#[derive(Debug)]
#[must_use = "the scope ends with its placeholder"]
pub struct Placeholder(Option<Child>);

#[derive(Debug)]
struct Child {
    /// Its other end; the child ends when this is closed.
    line: UnixStream,
    pid: i32,
    pidfd: OwnedFd,
}

impl Placeholder {
    /// For a cgroup that needs none.
    pub(crate) fn none() -> Placeholder {
        Placeholder(None)
    }

    /// Makes the child. Gives its process id, too.
    pub(super) fn start() -> io::Result<(Placeholder, i32)> {
        let (line, mut theirs) = UnixStream::pair()?;
        match clone_process(CloneFlags::NONE)? {
            Fork::Child => {
                // Our end of the line and all else that was inherited: locks, connections.
                if close_all_but(0, &[theirs.as_fd()]).is_ok() {
                    let _ = theirs.read(&mut [0]);
                }
                exit_now(0)
            }
            Fork::Parent { pid, pidfd } => {
                let child = Child { line, pid, pidfd };
                Ok((Placeholder(Some(child)), pid))
            }
        }
    }

    /// Process id of the child, where there is one.
    pub fn pid(&self) -> Option<i32> {
        self.0.as_ref().map(|child| child.pid)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        if let Some(Child { line, pidfd, .. }) = &self.0 {
            // Also where a process forked meanwhile has a copy of the descriptor.
            let _ = line.shutdown(Shutdown::Both);
            let _ = wait_pidfd(pidfd);
        }
    }
}
