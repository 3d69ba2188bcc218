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
    /// Those that are still on have to be taken off one by one.
    Done,
    /// One is in use.
    Busy,
}

/// Takes the files off the mount that is at `name` in the working directory and has the root
/// directory `root`, and notes in `off` which are off. The mount must not be shared.
///
/// `root` is used up: nothing here holds on to the mount afterwards.
pub fn lift(name: &[u8], root: OwnedFd, files: &[Vec<u8>], off: &mut [bool]) -> Lifted {
    // One on top of another in the same place would be found twice.
    if files.iter().collect::<HashSet<_>>().len() < files.len() {
        return Lifted::Done;
    }
    let asked = ask_all(name, files, off);
    if asked != Ok(()) {
        forget_that_they_were_asked(&root, files);
        return if asked == Err(Errno::BUSY) { Lifted::Busy } else { Lifted::Done };
    }
    let holder = match holder() {
        Ok(holder) if mount::attach(&holder, &root).is_ok() => holder,
        _ => {
            forget_that_they_were_asked(&root, files);
            return Lifted::Done;
        }
    };
    let flags = MoveMountFlags::empty();
    for (file, off) in files.iter().zip(off).filter(|(_, off)| !**off) {
        // By way of the root, on which the holder does not lie. Moving takes back that it was asked.
        *off = move_mount(&root, file.as_slice(), &holder, PLACE, flags).is_ok();
    }
    drop((root, holder));
    if let Err(error) = unmount(name, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // The container has moved things about while it waited.
        tracing::debug!(%error, "the directory of lifted files is not there any more");
    }
    Lifted::Done
}

/// Asks the kernel of every file whether it is in use.
fn ask_all(name: &[u8], files: &[Vec<u8>], off: &mut [bool]) -> Result<(), Errno> {
    let mut path = [name, b"/"].concat();
    for (file, off) in files.iter().zip(off) {
        path.truncate(name.len() + 1);
        path.extend_from_slice(file);
        // The first time it is only asked: nothing more comes of it.
        match unmount(path.as_slice(), UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW) {
            Err(Errno::AGAIN) => {}
            // It had been asked before, by the container.
            Ok(()) => *off = true,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A file that was asked about once is taken off by the next question, unless somebody has looked at
/// it in between.
fn forget_that_they_were_asked(root: &OwnedFd, files: &[Vec<u8>]) {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for file in files {
        // Gone is forgotten, too.
        let _ = openat(root, file.as_slice(), flags, Mode::empty());
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
