//! `maskedPaths` and `readonlyPaths` of the spec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, fstat, major, minor};
use rustix::mount::MountAttrFlags;
use sysbox_kernel::mount::{Attributes, attach, clone_tree, new_mount, set_attributes};

use super::destination::find;
use crate::plan::LABEL;

/// Covers each path: a directory by an empty read-only tmpfs, with the SELinux context `label`, anything
/// else by /dev/null.
pub fn masked_paths(root: BorrowedFd<'_>, paths: &[PathBuf], label: Option<&str>) -> Result<()> {
    // One for all directories: each further mount is a clone of the first, and made when that is in
    // its place, for kernels before 6.15 clone nothing that is not.
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(target) = find(root, path)? else { continue };
        let directory = FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory;
        let cover = match &empty {
            _ if !directory => null_device(),
            None => empty_directory(label),
            Some(first) => clone_tree(first, Path::new(""), false),
        };
        let cover = cover.with_context(|| format!("make a cover for {}", path.display()))?;
        attach(&cover, target).with_context(|| format!("mask {}", path.display()))?;
        if directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

fn empty_directory(label: Option<&str>) -> std::io::Result<OwnedFd> {
    let mut options = vec![("mode", "0555"), ("size", "0"), ("nr_inodes", "1")];
    options.extend(label.map(|label| (LABEL, label)));
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_mount("tmpfs", &options, attributes)
}

/// A clone of the host's own /dev/null, checked to be the device.
fn null_device() -> std::io::Result<OwnedFd> {
    let null = clone_tree(CWD, Path::new("/dev/null"), false)?;
    let stat = fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(std::io::Error::other("/dev/null is not char 1:3")) }
}

/// Makes each path read-only by a read-only mount of itself.
pub fn read_only_paths(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        ensure!(path.is_absolute(), "linux.readonlyPaths: {} is not absolute", path.display());
        let Some(target) = find(root, path)? else { continue };
        let clone = clone_tree(target.as_fd(), Path::new(""), true)
            .with_context(|| format!("clone {}", path.display()))?;
        let set = u64::from(linux_raw_sys::general::MOUNT_ATTR_RDONLY);
        set_attributes(&clone, Attributes { set, ..Attributes::default() }, true)
            .with_context(|| format!("make {} read-only", path.display()))?;
        attach(&clone, target).with_context(|| format!("mount {} read-only", path.display()))?;
    }
    Ok(())
}
