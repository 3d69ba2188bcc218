//! What is looked up in the image before the tree is built: whether /proc and /sys are directories in
//! it, and the modes of those that a tmpfs covers.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::tree;
use crate::plan::{MountPlan, Source};

/// As runc: /proc and /sys of the image must be directories, or absent. By a symbolic link there the
/// image would choose where they are, and what is read and written in their stead.
pub fn check_places(mounts: &[MountPlan], rootfs: BorrowedFd<'_>) -> Result<()> {
    for mount in mounts {
        let name = match mount.source {
            Source::Proc => "proc",
            Source::Sysfs => "sysfs",
            _ => continue,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match openat2(rootfs, &mount.destination, flags, Mode::empty(), resolve) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => bail!(
                "mount {}: filesystem {name:?} must be mounted on ordinary directory",
                mount.destination.display()
            ),
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("look up {} in the image", mount.destination.display())
                });
            }
        }
    }
    Ok(())
}

/// As runc: a tmpfs without a `mode` has that of the image's directory in its place. The kernel's
/// own default, 1777, stays where the image has none.
pub fn take_over_modes(mounts: &mut [MountPlan], rootfs: BorrowedFd<'_>) -> Result<()> {
    for mount in mounts.iter_mut().filter(|mount| mount.source == Source::Tmpfs) {
        if mount.options.data.iter().any(|word| word.starts_with("mode=")) {
            continue;
        }
        let Some(directory) = tree::find(rootfs, &mount.destination)? else { continue };
        let stat = fstat(&directory)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mount.options.data.push(format!("mode={:o}", stat.st_mode & 0o7777));
        }
    }
    Ok(())
}
