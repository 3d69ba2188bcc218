//! The last step of a new mount: into the caller's mount namespace, onto its target.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::fchdir;
use sysbox_kernel::mount;
use sysbox_kernel::notify::Answer;

use super::super::caller::Caller;
use super::super::mountinfo::{self, Entry};
use super::super::worker::Worker;
use super::emulated::Cover;
use super::{Attempt, Served, Stop};

/// A new file system and where it goes.
#[derive(Debug)]
pub struct Delivery {
    /// The file system, attached nowhere.
    pub mount: OwnedFd,
    /// What is to cover parts of it.
    pub cover: Cover,
    /// What to mount on.
    pub target: OwnedFd,
    /// The mount namespace that `target` is in; if it is not, the kernel says `EINVAL`.
    pub mount_namespace: OwnedFd,
}

impl Delivery {
    /// Attaches it, covered by its virtualised files.
    pub fn carry_out(self, worker: &mut Worker, caller: &Caller<'_>) -> Attempt<Served> {
        let Self { mount, cover, target, mount_namespace } = self;
        let uncovered = |error| Stop::Broken("attaching the virtualised files", error);
        let cover_first = worker.host.features.detached_trees;
        if cover_first {
            cover.attach(worker, mount.as_fd()).map_err(uncovered)?;
        }
        let attached = worker.in_mount_namespace(&mount_namespace, |worker| {
            // The last moment to find that it is all in vain.
            if !caller.still_waits() {
                return Err(Stop::Continue);
            }
            mount::attach(&mount, &target).map_err(refusal)?;
            if cover_first {
                return Ok(());
            }
            cover.attach(worker, mount.as_fd()).map_err(|error| {
                // The first error is the one to tell.
                let _ = detach(&mount);
                uncovered(error)
            })
        });
        attached.map_err(|error| Stop::Broken("entering the mount namespace", error))??;
        let undo = Attached::new(&mount, mount_namespace).ok();
        Ok(Served { answer: Answer::Success, undo })
    }
}

/// A mount that was attached, without holding on to it.
#[derive(Debug)]
pub struct Attached {
    mount_namespace: OwnedFd,
    id: u64,
    device: u64,
}

impl Attached {
    fn new(mount: &OwnedFd, mount_namespace: OwnedFd) -> io::Result<Self> {
        let found = statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok(Self {
            mount_namespace,
            id: found.stx_mnt_id,
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        })
    }

    /// Takes the mount away again, whoever uses it.
    pub fn take_back(self, worker: &mut Worker) {
        let undone = worker.in_mount_namespace(&self.mount_namespace, |worker| {
            let mounts = mountinfo::parse(&worker.own_mountinfo()?);
            let is_it = |entry: &&Entry| entry.id == self.id && entry.device == self.device;
            match mounts.iter().find(is_it) {
                Some(entry) => self.detach_at(&entry.point),
                // Somebody was quicker.
                None => Ok(()),
            }
        });
        if let Err(error) = undone.and_then(|done| done) {
            tracing::warn!(%error, "taking back a mount whose caller is gone");
        }
    }

    fn detach_at(&self, point: &[u8]) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, point, flags, Mode::empty())?;
        let found = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        if found.stx_mnt_id != self.id {
            return Ok(());
        }
        match detach(&root) {
            // Gone since.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
            result => result,
        }
    }
}

/// The kernel refused the target; it would refuse it to the caller with the same word.
fn refusal(error: io::Error) -> Stop {
    match Errno::from_io_error(&error) {
        Some(errno) => Stop::Refuse(errno),
        None => Stop::Broken("attaching the new mount", error),
    }
}

/// Takes an attached mount and all that is on it away. It is named by the working directory: a
/// path could by now lead elsewhere.
fn detach(mount: &OwnedFd) -> io::Result<()> {
    fchdir(mount)?;
    Ok(unmount(".", UnmountFlags::DETACH)?)
}
