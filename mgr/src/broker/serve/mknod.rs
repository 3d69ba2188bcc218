//! Device nodes that container root may make.
//!
//! The node is made by the kernel's own mknod(2), in a thread that has the caller's identity for
//! files and nothing of the manager's rights but `CAP_MKNOD`; so permissions, quotas, ownership
//! (through ID-mapped mounts too) and the file mode mask are those of the caller.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, mknodat, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use sysbox_kernel::notify::Answer;

use super::super::caller::Caller;
use super::super::decide::{capability, is_capable};
use super::super::request::AT_FDCWD;
use super::super::resolve;
use super::super::worker::{Identity, Worker};
use super::{Attempt, Served, Stop, or_continue};

/// Noted before the node is made.
const BEGUN: u64 = 1;

/// The arguments of mknodat(2).
#[derive(Debug)]
pub struct Node {
    /// Descriptor that a relative path starts from, or `AT_FDCWD`.
    pub dir: i32,
    /// Address of the path.
    pub path_at: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Device number; known to be a permitted one.
    pub device: u32,
}

/// Serves a mknod(2) or mknodat(2) of a permitted device.
pub fn serve(worker: &mut Worker, caller: &Caller<'_>, node: &Node) -> Attempt<Served> {
    let own = or_continue(caller.own_lineage())?.ok_or(Stop::Continue)?;
    if !is_capable(caller.credentials(), &own, capability::MKNOD) {
        return Err(Stop::Continue);
    }
    let path = or_continue(caller.string(node.path_at))?.ok_or(Stop::Continue)?;
    let (dir, name) = split(&path).ok_or(Stop::Continue)?;
    let start = match node.dir {
        AT_FDCWD => caller.working_directory(),
        number => caller.descriptor(number),
    };
    let start = or_continue(start)?;
    let root = or_continue(caller.root())?;
    let parent = resolve::from(worker, caller, &root, &start, dir, true);
    let parent = or_continue(parent)?;
    let identity = Identity {
        uid: caller.status.fsuid,
        gid: caller.status.fsgid,
        groups: &caller.status.groups,
        keep: rights(caller, &parent)?,
        umask: caller.status.umask,
    };
    if !caller.still_waits() {
        return Err(Stop::Continue);
    }
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    let begun = caller.noted() != 0;
    caller.note(BEGUN);
    let made = worker.acting_as(identity, |_| {
        let device = u64::from(node.device);
        mknodat(&parent, name, FileType::CharacterDevice, mode, device)
    });
    match made.map_err(|error| Stop::Broken("taking on the identity of a caller", error))? {
        // A manager that died has made it.
        Err(Errno::EXIST) if begun && find_node(&parent, name, node.device).is_some() => {}
        made => made.map_err(Stop::Refuse)?,
    }
    if !works(worker, &parent, name, node.device) {
        remove(&parent, name);
        return Err(Stop::Continue);
    }
    // Nothing to undo if the caller is gone: mknod(2) by the kernel is not interrupted either.
    Ok(Answer::Success.into())
}

/// Directory and last name of a path. `None` where there is nothing to make: the kernel says why.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let (dir, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..=at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((dir, name))
}

/// Permissions of a directory stop a caller with `CAP_DAC_OVERRIDE` only if its owner does not
/// exist in the caller's user namespace.
fn rights(caller: &Caller<'_>, parent: &OwnedFd) -> Attempt<CapabilitySet> {
    let mut rights = CapabilitySet::MKNOD;
    if caller.status.effective & capability::DAC_OVERRIDE != 0 {
        let owner = or_continue(fstat(parent))?;
        if or_continue(caller.has_ids(owner.st_uid, owner.st_gid))? {
            rights |= CapabilitySet::DAC_OVERRIDE;
        }
    }
    Ok(rights)
}

/// Whether the new node can be opened. File systems that were mounted inside a user namespace take
/// nodes and never open them; there the kernel's `EPERM` is better, as programs have another way
/// for that. A mount with the option `nodev` was asked not to open them.
fn works(worker: &Worker, parent: &OwnedFd, name: &[u8], device: u32) -> bool {
    let nodev = |found: rustix::fs::StatVfs| found.f_flag.contains(StatVfsMountFlags::NODEV);
    if fstatvfs(parent).is_ok_and(nodev) {
        return true;
    }
    // Somebody may have put another thing there; then the node is none of our business any more.
    let Some(node) = find_node(parent, name, device) else {
        return true;
    };
    use std::os::fd::AsRawFd;
    let link = format!("thread-self/fd/{}", node.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = openat(&worker.host.proc, link, flags, Mode::empty());
    !matches!(opened, Err(Errno::ACCESS))
}

/// The device node of this name, if it is this one.
fn find_node(parent: &OwnedFd, name: &[u8], device: u32) -> Option<OwnedFd> {
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(parent, name, place, Mode::empty()).ok()?;
    let found = fstat(&node).ok()?;
    let is_it = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == u64::from(device);
    is_it.then_some(node)
}

fn remove(parent: &OwnedFd, name: &[u8]) {
    if let Err(error) = unlinkat(parent, name, AtFlags::empty()) {
        tracing::debug!(%error, "a device node to take back is not there any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_the_last_name() {
        let whole = |path: &'static str| split(path.as_bytes());
        assert_eq!(whole("/dev/null"), Some((&b"/dev/"[..], &b"null"[..])));
        assert_eq!(whole("null"), Some((&b"."[..], &b"null"[..])));
        assert_eq!(whole("/null"), Some((&b"/"[..], &b"null"[..])));
        for nothing in ["", "/", "dev/", "..", "a/.", "a/.."] {
            assert_eq!(whole(nothing), None, "{nothing}");
        }
    }
}
