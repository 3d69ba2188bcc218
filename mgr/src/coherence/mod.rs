//! Keeps two overlays over one upper directory in step.
//!
//! The container's root is an overlay of its own, made of ID-mapped layers; the engine's merged mount
//! stays in the host's mount namespace and shares the upper directory with it. Each of the two
//! remembers what it has looked up, so `docker cp` may miss a file that the container made, and the
//! container one that `docker cp` brought.
//!
//! A *reconfigure without changes* of an overlay (`fspick`, `FSCONFIG_CMD_RECONFIGURE`; what
//! `mount -o remount` does) makes the kernel forget all that is not in use: `reconfigure_super()`
//! calls `shrink_dcache_sb()`. It changes no option, not even `ro`, because no option is named. It takes
//! some 30 µs plus the time to free the entries.
//!
//! What *is* in use is settled before, so that both sides agree on it ([`in_use`]).
//!
//! When to forget is told by fanotify:
//! - Docker's overlay2 driver (and Podman) opens `<layer>/lower` at the beginning and at the end of
//!   everything that it does with the merged mount ([`before_looks`]): both sides forget before the open
//!   returns, so each look is fresh, and so is the container's next look after a copy into it;
//! - a Docker that keeps images in containerd has no such file. It begins with an open of the merged
//!   mount's root directory (to place the volumes of its copy of the mount, or to walk through all of
//!   it), which is waited for in the same way. There is no sign of the end: an open anywhere on the merged
//!   mount is noticed after it happened, too ([`after_looks`]), and once there have been none for a while
//!   both sides forget again. So it is with all other engines.

mod after_looks;
mod before_looks;
mod held;
mod in_use;
mod view;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::fanotify::{Fanotify, FanotifyEvent, MarkFlags, MaskFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstat};
use sysbox_kernel::process::fd_path;

pub use in_use::Container;
pub use view::{View, is_overlay};

use crate::sync::lock;
use after_looks::AfterLooks;
use before_looks::BeforeLooks;

/// All root file systems that are kept coherent.
#[derive(Debug)]
pub struct Coherence {
    before: Option<BeforeLooks>,
    after: Option<AfterLooks>,
    /// By the key of the registration.
    watched: Mutex<HashMap<u32, Watched>>,
}

/// How one container is watched; dropping it does not end the watch, [`Coherence::forget`] does.
#[derive(Debug)]
struct Watched {
    view: Arc<View>,
    /// Docker's `lower` file, where the engine is Docker's overlay2 driver. `None`: the root directory of
    /// the merged mount tells of looks.
    lower: Option<File>,
}

impl Coherence {
    /// Starts the two threads. A kernel without fanotify (or without its permission events) is
    /// reported, and the rest works: then only the drop at the container's end is left.
    pub fn start() -> Self {
        fn warn<T>(what: &'static str, result: io::Result<T>) -> Option<T> {
            result
                .inspect_err(|e| {
                    tracing::warn!("{what} of running containers may show old contents: {e}")
                })
                .ok()
        }
        Self {
            before: warn("`docker cp`", BeforeLooks::start()),
            after: warn("copies by other engines", AfterLooks::start()),
            watched: Mutex::default(),
        }
    }

    /// Keeps a container's root coherent until [`forget`](Self::forget).
    ///
    /// `rootfs`: path of the engine's mount, which the view holds by descriptor.
    pub fn watch(&self, key: u32, view: Arc<View>, rootfs: &Path) {
        let lower = self.before.as_ref().and_then(|_| docker_lower(&view, rootfs));
        let after = self.after.as_ref().filter(|_| lower.is_none());
        let ended = after.map_or(Ok(()), |after| after.add(&view));
        let opened = lower.as_ref().map_or(view.engine(), File::as_fd);
        let begun = self.before.as_ref().map_or(Ok(()), |before| before.add(opened, &view));
        for e in [ended, begun].into_iter().filter_map(Result::err) {
            tracing::warn!(
                rootfs = %rootfs.display(),
                "cannot be watched for looks of the engine: {e}"
            );
        }
        lock(&self.watched).insert(key, Watched { view, lower });
    }

    /// Ends the watch. The views are brought up to date once more.
    pub fn forget(&self, key: u32) {
        let Some(Watched { view, lower }) = lock(&self.watched).remove(&key) else {
            return;
        };
        if let Some(before) = &self.before {
            before.remove(lower.as_ref().map_or(view.engine(), File::as_fd));
        }
        if let Some(after) = self.after.as_ref().filter(|_| lower.is_none()) {
            after.remove(&view);
        }
        view.refresh();
    }
}

/// Marks what `at` refers to, or takes a mark off. By its path in /proc: fanotify_mark(2) takes no `O_PATH`
/// descriptor, and to open a marked file would be a look, which waits for us.
fn mark(group: &Fanotify, what: MarkFlags, mask: MaskFlags, at: BorrowedFd<'_>) -> io::Result<()> {
    Ok(group.mark(what, mask, at, Some(fd_path(at).as_str()))?)
}

/// The events of a group that come within `timeout` (`None`: however long it takes).
fn next_events(group: &Fanotify, timeout: Option<Duration>) -> Vec<FanotifyEvent> {
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    let mut fds = [PollFd::new(group, PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Vec::new(),
        Ok(_) => group.read_events().unwrap_or_else(|e| pause(&e)),
        Err(e) => pause(&e),
    }
}

/// Out of memory or descriptors: do not turn that into a busy loop.
fn pause(error: &dyn std::fmt::Display) -> Vec<FanotifyEvent> {
    tracing::warn!("waiting for looks at root file systems: {error}");
    std::thread::sleep(Duration::from_millis(100));
    Vec::new()
}

/// Docker's file beside the merged mount, if that is how this rootfs is laid out.
fn docker_lower(view: &View, rootfs: &Path) -> Option<File> {
    if rootfs.file_name()? != "merged" {
        return None;
    }
    // The path and the descriptor must mean the same directory, or the file belongs to another.
    if !crate::volumes::is_at(&fstat(view.engine()).ok()?, rootfs) {
        return None;
    }
    let layer = rustix::fs::open(
        rootfs.parent()?,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let lower = rustix::fs::openat(layer.as_fd(), "lower", flags, Mode::empty()).ok()?;
    Some(File::from(lower))
}
