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
use sysbox_kernel::notify::Answer;

use super::super::caller::{Caller, Namespace};
use super::super::decide::{self, Facts};
use super::super::mountinfo::{self, Entry};
use super::super::resolve;
use super::super::worker::Worker;
use super::around::around;
use super::covered::files_on;
use super::emulated::OF_NET_NAMESPACE;
use super::place::{Place, emulated_device};
use super::{Attempt, Origin, Served, Stop, or_continue};

/// Serves a mount(2) with `MS_REMOUNT`, by letting it continue in the end.
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
    let emulated = emulated_device(&origin.container)?;
    if !there.is_root {
        let mounts = mountinfo::parse(&or_continue(caller.mountinfo())?);
        let is_hidden = is_of_another_network(&mounts, &path, emulated);
        return if is_hidden { Ok(Answer::Success.into()) } else { Err(Stop::Continue) };
    }
    let mount_namespace = or_continue(caller.namespace(Namespace::Mount))?;
    let mounts = around(worker, caller, &mount_namespace, &target, emulated)?;
    let files = files_on(&mounts, there.mount_id, emulated);
    if files.is_empty() {
        return Err(Stop::Continue);
    }
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

/// Whether a path is that of a virtualised file below /proc/sys/net which the caller does not find there,
/// because it is in another network namespace than who mounted it.
///
/// Sandboxes (bubblewrap) go by their mount table: they remount each mount that stands there, and give up
/// at an error. On a normal machine there is no mount at this place. Nobody is fooled by the answer but
/// the caller, who can't reach the file.
fn is_of_another_network(mounts: &[Entry], path: &[u8], emulated: u64) -> bool {
    let is_it = |mount: &&Entry| mount.device == emulated && mount.point == path;
    let carrier = |mount: &Entry| mounts.iter().find(|below| below.id == mount.parent);
    let is_of_net = |mount: &Entry, carrier: &Entry| {
        let place = mount.point.strip_prefix(carrier.point.as_slice());
        let place = place.map(|place| place.strip_prefix(b"/").unwrap_or(place));
        carrier.file_system == b"proc"
            && place.is_some_and(|place| place.starts_with(OF_NET_NAMESPACE.as_bytes()))
    };
    let found = mounts.iter().find(is_it);
    found.is_some_and(|mount| carrier(mount).is_some_and(|carrier| is_of_net(mount, carrier)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_network_are_those_below_sys_net() {
        let text = "1 0 8:1 / / rw - overlay x rw\n\
            20 1 0:50 / /new/proc rw - proc x rw\n\
            21 20 0:99 / /new/proc/sys/net/core/rmem_max rw - fuse x rw\n\
            22 20 0:99 / /new/proc/uptime rw - fuse x rw\n\
            23 1 0:99 / /sys/net/file rw - fuse x rw\n";
        let mounts = mountinfo::parse(text.as_bytes());
        let is_it = |path: &str, device| {
            is_of_another_network(&mounts, path.as_bytes(), rustix::fs::makedev(0, device))
        };
        assert!(is_it("/new/proc/sys/net/core/rmem_max", 99));
        assert!(!is_it("/new/proc/sys/net/core/rmem_max", 98), "another file system");
        for other in ["/new/proc/uptime", "/sys/net/file", "/new/proc", "/nowhere", ""] {
            assert!(!is_it(other, 99), "{other}");
        }
    }
}
