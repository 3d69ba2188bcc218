//! The last step of a new mount: into the caller's mount namespace, onto its target.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::fchdir;
use sysbox_kernel::notify::Answer;
use sysbox_kernel::{mount, mount_table};

use super::super::caller::Caller;
use super::super::made::Made;
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
    pub fn carry_out(
        self,
        worker: &mut Worker,
        caller: &Caller<'_>,
        made: &Made,
    ) -> Attempt<Served> {
        let Self { mount, cover, target, mount_namespace } = self;
        let bounded = worker.host.features.foreign_mounts;
        let room = bounded.then(|| made.room(1 + cover.len())).transpose().map_err(Stop::Refuse)?;
        let uncovered = |error| Stop::Broken("attaching the virtualised files", error);
        let cover_first = worker.host.features.detached_trees;
        if cover_first {
            cover.attach(worker, mount.as_fd()).map_err(uncovered)?;
        }
        let (id, device) =
            identity(&mount).map_err(|error| Stop::Broken("looking at the new mount", error))?;
        // What is counted is known before the mount is there: nothing may fail afterwards.
        let whose = bounded
            .then(|| counted_as(&mount_namespace, &mount))
            .transpose()
            .map_err(|error| Stop::Broken("looking at the new mount", error))?;
        let attached = worker.in_mount_namespace(&mount_namespace, |worker| {
            // The last moment to find that it is all in vain.
            if !caller.still_waits() {
                return Err(Stop::Continue);
            }
            caller.note(id);
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
        if let Some((room, (namespace, mount))) = room.zip(whose) {
            room.keep(namespace, mount);
        }
        let undo = Attached { mount_namespace, id, device };
        Ok(Served { answer: Answer::Success, undo: Some(undo) })
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
    /// The mount that a manager that died meant to attach, if it has come to that.
    ///
    /// `id` is what it noted. Mount ids are used again: so that a stranger is not taken for it, the
    /// type must be that of the request. Nothing but our own work makes such mounts for a caller
    /// that waits.
    pub fn find(
        worker: &mut Worker,
        mount_namespace: &OwnedFd,
        id: u64,
        file_system: &[u8],
    ) -> io::Result<Option<Self>> {
        let text =
            worker.in_mount_namespace(mount_namespace, |worker| worker.own_mountinfo())??;
        let mounts = mountinfo::parse(&text);
        let is_it = |entry: &&Entry| entry.id == id && entry.file_system == file_system;
        let Some(entry) = mounts.iter().find(is_it) else {
            return Ok(None);
        };
        Ok(Some(Self::of(mount_namespace.try_clone()?, entry)))
    }

    /// A mount out of the table of a mount namespace.
    pub fn of(mount_namespace: OwnedFd, entry: &Entry) -> Self {
        Self { mount_namespace, id: entry.id, device: entry.device }
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

/// By what a mount is found later on, in the namespace that it goes to.
fn counted_as(
    namespace: &OwnedFd,
    mount: &OwnedFd,
) -> io::Result<(mount_table::NamespaceId, mount_table::MountId)> {
    Ok((mount_table::namespace_of(namespace)?, mount_table::mount_of(mount)?))
}

/// Id and device of a mount. Both stay the same when it is attached.
fn identity(mount: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
    Ok((found.stx_mnt_id, device))
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
