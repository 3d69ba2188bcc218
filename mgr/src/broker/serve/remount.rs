//! Remounting a proc or sysfs, or a bind mount of a part of one, that carries virtualised files.
//!
//! Inner engines make /proc/sys read-only for their containers by a bind mount and a remount. To the
//! caller that is one mount; to the kernel each virtualised file on it is another, which would stay
//! writable. Here the files are given the flag first; then the call continues, and the kernel does
//! the remount itself, or refuses it, with the caller's own rights.
//!
//! What the operator fixed is not loosened by it: the kernel lets nobody take the flag off a mount
//! that it has locked.

use std::os::fd::OwnedFd;

use linux_raw_sys::general::MOUNT_ATTR_RDONLY;
use rustix::fs::{Mode, OFlags, openat};
use sysbox_kernel::mount::{Attributes, set_attributes};

use super::super::caller::{Caller, Namespace};
use super::super::decide::{self, Facts};
use super::super::mountinfo;
use super::super::resolve;
use super::super::worker::Worker;
use super::covered::files_on;
use super::place::{Place, emulated_device};
use super::{Attempt, Origin, Served, Stop, or_continue};

/// Serves a mount(2) with `MS_REMOUNT`: always by letting it continue.
pub fn serve(
    worker: &mut Worker,
    origin: &Origin,
    caller: &Caller<'_>,
    target_at: u64,
    read_only: bool,
) -> Attempt<Served> {
    let path = or_continue(caller.string(target_at))?.ok_or(Stop::Continue)?;
    let target = or_continue(resolve::object(worker, caller, &path, true))?;
    let there = Place::of(&target)?;
    if !there.is_root {
        return Err(Stop::Continue);
    }
    let mounts = mountinfo::parse(&or_continue(caller.mountinfo())?);
    let files = files_on(&mounts, there.mount_id, emulated_device(&origin.container)?);
    if files.is_empty() {
        return Err(Stop::Continue);
    }
    let mount_namespace = or_continue(caller.namespace(Namespace::Mount))?;
    let facts = Facts {
        credentials: caller.credentials(),
        mount: or_continue(caller.lineage(&mount_namespace))?,
        shown: None,
        container: origin.userns,
    };
    if !decide::may_mount(&facts) || !caller.still_waits() {
        return Err(Stop::Continue);
    }
    let changed = worker.in_mount_namespace(&mount_namespace, |_| {
        for (id, place) in &files {
            set_read_only(&target, *id, place, read_only);
        }
    });
    changed.map_err(|error| Stop::Broken("entering the mount namespace", error))?;
    Err(Stop::Continue)
}

/// Changes one file. It stays as it is where another mount covers it, and where it is locked.
fn set_read_only(target: &OwnedFd, id: u64, place: &[u8], read_only: bool) {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = openat(target, place, flags, Mode::empty()) else {
        return;
    };
    if !Place::of(&file).is_ok_and(|found| found.mount_id == id && found.is_root) {
        return;
    }
    let flag = u64::from(MOUNT_ATTR_RDONLY);
    let change = match read_only {
        true => Attributes { set: flag, ..Attributes::default() },
        false => Attributes { clear: flag, ..Attributes::default() },
    };
    if let Err(error) = set_attributes(&file, change, false) {
        tracing::debug!(%error, "a virtualised file keeps its flags in a remount");
    }
}
