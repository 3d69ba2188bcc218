//! The two overlays of one container, and how they are made to forget.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::fstatfs;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};

use super::in_use::Container;
use crate::close;
use crate::sync::lock;

/// `f_type` of an overlay (linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// How long a refresh waits for one that is under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a descriptor refers to something on an overlay.
///
/// Only for descriptors of the host's own mounts: the question goes to the file system, and one that
/// a container serves may never answer.
pub fn is_overlay(fd: BorrowedFd<'_>) -> bool {
    fstatfs(fd).is_ok_and(|fs| fs.f_type as u64 == OVERLAYFS_SUPER_MAGIC)
}

/// Both views of one upper directory.
#[derive(Debug)]
pub struct View {
    engine: OwnedFd,
    container: Mutex<Option<Arc<Container>>>,
    /// Whether a refresh is under way. One that hangs (somebody holds the superblock) must not be
    /// joined by more and more threads.
    busy: Mutex<bool>,
    done: Condvar,
}

impl View {
    /// `engine`: any descriptor of the engine's merged mount. `None` if that is no overlay.
    pub fn new(engine: OwnedFd) -> Option<Self> {
        is_overlay(engine.as_fd()).then(|| Self {
            engine,
            container: Mutex::new(None),
            busy: Mutex::new(false),
            done: Condvar::new(),
        })
    }

    /// The engine's merged mount.
    pub fn engine(&self) -> BorrowedFd<'_> {
        self.engine.as_fd()
    }

    /// Sets or clears the container's own overlay. It is held only while init lives: the descriptor
    /// keeps the mount, and with it the upper directory, in use.
    pub fn set_container(&self, container: Option<Container>) {
        let old = std::mem::replace(&mut *lock(&self.container), container.map(Arc::new));
        // No longer mounted anywhere, so it is not in the engine's way.
        if let Some(old) = old {
            close::later(old);
        }
    }

    /// Before a look: settles what is in use inside, and makes both forget what they have looked up. Errors
    /// are logged: the worst that they cause is an old view.
    pub fn refresh(&self) {
        self.one_at_a_time(Container::settle_directories);
    }

    /// After a look, when it is too late to settle anything, and that (a walk through the container's
    /// processes) would only cost time: makes both forget.
    pub fn forget(&self) {
        self.one_at_a_time(|_| ());
    }

    fn one_at_a_time(&self, settle: impl FnOnce(&Container)) {
        // What another refresh has passed already may be old again: wait for it, then do our own.
        let (mut busy, waited) = self
            .done
            .wait_timeout_while(lock(&self.busy), PATIENCE, |busy| *busy)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return;
        }
        *busy = true;
        drop(busy);
        let container = lock(&self.container).clone();
        if let Some(container) = &container {
            settle(container);
        }
        for (whose, fd) in [
            ("engine", Some(self.engine.as_fd())),
            ("container", container.as_ref().map(|c| c.root.as_fd())),
        ] {
            if let Some(Err(e)) = fd.map(drop_entries) {
                tracing::debug!("the {whose}'s view of a root file system may be old: {e}");
            }
        }
        *lock(&self.busy) = false;
        self.done.notify_all();
    }
}

/// Drops all unused directory entries of an overlay; see the module documentation.
fn drop_entries(fd: BorrowedFd<'_>) -> io::Result<()> {
    let context = fspick(fd, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
    Ok(fsconfig_reconfigure(context.as_fd())?)
}
