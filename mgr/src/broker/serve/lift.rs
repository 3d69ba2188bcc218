//! Taking all virtualised files off a mount at once.
//!
//! Each umount(2) waits for a grace period of the kernel's RCU, moving a mount does not. So the files
//! are moved onto one directory, which is then detached with all of them: one grace period, however
//! many files there are. That directory covers the mount meanwhile, which is on its way out anyway.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};
use sysbox_kernel::mount;

/// The file in the directory that all are stacked on.
const PLACE: &str = "files";

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Lifted {
    /// So many are off, counted from the first.
    Off(usize),
    /// One is in use; all are where they were.
    Busy,
    /// They have to be taken off one by one; all are where they were.
    Not,
}

/// Takes the files off the mount that is at `name` in the working directory and has the root
/// directory `root`. The mount must not be shared.
///
/// It is used up: nothing here holds on to the mount afterwards.
pub fn lift(name: &[u8], root: OwnedFd, files: &[Vec<u8>]) -> Lifted {
    // One on top of another in the same place would be found twice.
    if files.iter().collect::<HashSet<_>>().len() < files.len() {
        return Lifted::Not;
    }
    let mut mounts = Vec::with_capacity(files.len());
    let mut path = [name, b"/"].concat();
    for file in files {
        path.truncate(name.len() + 1);
        path.extend_from_slice(file);
        // Asks whether it is in use: the first time, nothing more comes of it.
        match unmount(path.as_slice(), UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW) {
            Err(Errno::AGAIN) => {}
            // It had been asked before, by the container: then it is off.
            Ok(()) => continue,
            Err(Errno::BUSY) => return Lifted::Busy,
            Err(_) => return Lifted::Not,
        }
        // Also takes back that it was asked.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&root, file.as_slice(), flags, Mode::empty()) {
            Ok(mount) => mounts.push(mount),
            Err(_) => return Lifted::Not,
        }
    }
    let Ok(holder) = holder() else {
        return Lifted::Not;
    };
    if mount::attach(&holder, &root).is_err() {
        return Lifted::Not;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let moves = mounts.iter().map(|file| move_mount(file, "", &holder, PLACE, flags));
    let moved = moves.take_while(Result::is_ok).count();
    let all = moved == mounts.len();
    drop((mounts, root, holder));
    let detached = unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    match (detached, all) {
        (Ok(()), true) => Lifted::Off(files.len()),
        (Ok(()), false) => Lifted::Off(moved),
        (Err(error), _) => {
            // The container has moved things about while it waited.
            tracing::debug!(%error, "the directory of lifted files is not there any more");
            Lifted::Off(files.len())
        }
    }
}

/// A directory with a file in it, attached nowhere. It belongs to the host: the container can
/// neither write to it nor make it writable.
fn holder() -> io::Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", "0555"), ("nr_inodes", "3"), ("size", "4096")];
    let holder = mount::new_mount("tmpfs", &options, attributes)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&holder, PLACE, flags, Mode::RUSR)?;
    Ok(holder)
}
