//! A new mount of proc, sysfs or an empty directory.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags, fstat, statx};
use rustix::io::Errno;
use sysbox_kernel::notify::Answer;

use super::super::caller::{Caller, Namespace};
use super::super::decide::{self, Facts, NewMount};
use super::super::request::Mount;
use super::super::resolve;
use super::super::worker::Worker;
use super::attach::Attached;
use super::emulated::{Carrier, Cover};
use super::{Attempt, Origin, Served, Stop, attach, empty, new_proc, new_sysfs, or_continue};

/// What the makers of file systems need to know.
#[derive(Debug)]
pub struct Wanted {
    /// `MS_*`
    pub flags: u64,
    /// What to show as its source.
    pub source: Option<Vec<u8>>,
    /// Options.
    pub data: Vec<u8>,
}

impl Wanted {
    /// Whether the mount, and what covers it, is to be read-only.
    pub fn is_read_only(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// Serves a mount(2).
pub fn serve(
    worker: &mut Worker,
    origin: &Origin,
    caller: &Caller<'_>,
    kind: NewMount,
    request: &Mount,
) -> Attempt<Served> {
    let target = or_continue(caller.string(request.target_at))?.ok_or(Stop::Continue)?;
    let wanted = Wanted {
        flags: request.flags,
        source: or_continue(caller.string(request.source_at))?,
        data: or_continue(caller.string(request.data_at))?.unwrap_or_default(),
    };
    let mount_namespace = or_continue(caller.namespace(Namespace::Mount))?;
    let shown = match kind {
        NewMount::Proc => Some(or_continue(caller.namespace(Namespace::Pid))?),
        NewMount::Sysfs => Some(or_continue(caller.namespace(Namespace::Net))?),
        NewMount::Empty => None,
    };
    let shown_lineage = shown.as_ref().map(|namespace| caller.lineage(namespace));
    let facts = Facts {
        credentials: caller.credentials(),
        mount: or_continue(caller.lineage(&mount_namespace))?,
        shown: or_continue(shown_lineage.transpose())?.flatten(),
        container: origin.userns,
    };
    if !decide::may_mount_new(kind, &facts) {
        return Err(Stop::Continue);
    }
    if let Some(served) = go_on(worker, caller, kind, &mount_namespace)? {
        return Ok(served);
    }
    let target = or_continue(resolve::object(worker, caller, &target, true))?;
    if !caller.still_waits() {
        return Err(Stop::Continue);
    }
    let there = Target::new(&target)?;
    let (mount, carrier) = match (kind, &shown) {
        (NewMount::Proc, Some(pidns)) => {
            let mount = new_proc::make(worker, caller, pidns, &wanted)?;
            (mount, Some(Carrier::Proc))
        }
        (NewMount::Sysfs, Some(netns)) => {
            let mount = new_sysfs::make(worker, netns, &wanted)?;
            there.refuse_twice(&mount)?;
            (mount, Some(Carrier::Sysfs))
        }
        _ => (empty::make(caller, &wanted)?, None),
    };
    let cover = match carrier {
        None => Cover::default(),
        Some(carrier) => Cover::find(
            &origin.container,
            carrier,
            wanted.is_read_only(),
            |_| true,
            || caller.namespace(Namespace::Net),
        )
        .map_err(|error| Stop::Broken("finding the virtualised files", error))?,
    };
    let delivery = attach::Delivery { mount, cover, target, mount_namespace };
    delivery.carry_out(worker, caller, &origin.container.made)
}

/// Goes on where a manager that died has left off: its mount is in place, or all is to be done.
fn go_on(
    worker: &mut Worker,
    caller: &Caller<'_>,
    kind: NewMount,
    mount_namespace: &OwnedFd,
) -> Attempt<Option<Served>> {
    let id = caller.noted();
    if id == 0 {
        return Ok(None);
    }
    let file_system: &[u8] = match kind {
        NewMount::Proc => b"proc",
        NewMount::Sysfs => b"sysfs",
        NewMount::Empty => b"tmpfs",
    };
    let found = Attached::find(worker, mount_namespace, id, file_system)
        .map_err(|error| Stop::Broken("looking for the mount of a manager that died", error))?;
    match found {
        // It was attached in one piece with its virtualised files.
        Some(_) if worker.host.features.detached_trees => Ok(Some(Answer::Success.into())),
        Some(attached) => {
            attached.take_back(worker);
            Ok(None)
        }
        None => Ok(None),
    }
}

/// What is known of the object to mount on.
#[derive(Debug)]
struct Target {
    device: u64,
    is_root: bool,
}

impl Target {
    /// Looks at it, without asking its file system, which may be one that the container serves.
    fn new(object: &OwnedFd) -> Attempt<Self> {
        let look = |what| statx(object, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, what);
        let found = match look(StatxFlags::TYPE) {
            // A FUSE file system that was mounted inside talks to nobody outside. (Rootless engines
            // have their containers' roots on one.) The kernel tells what it knows by itself.
            Err(Errno::ACCESS) => or_continue(look(StatxFlags::empty()))?,
            found => or_continue(found)?,
        };
        let kind = FileType::from_raw_mode(u32::from(found.stx_mode));
        let is_known = found.stx_mode != 0;
        if is_known && kind != FileType::Directory {
            return Err(Stop::Refuse(Errno::NOTDIR));
        }
        Ok(Self {
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            is_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }

    /// The kernel's `EBUSY` for the same file system twice on the same spot. sysfs has one
    /// instance for each network namespace; each procfs is a new one.
    fn refuse_twice(&self, tree: &OwnedFd) -> Attempt<()> {
        let new = or_continue(fstat(tree))?;
        if self.is_root && self.device == new.st_dev {
            return Err(Stop::Refuse(Errno::BUSY));
        }
        Ok(())
    }
}
