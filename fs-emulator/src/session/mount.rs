//! The mount of the FUSE file system.
//!
//! The mount point is never looked at by path while nobody serves it: that would wait for an answer
//! which only this daemon could give. The mount table tells what is needed.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use sysbox_kernel::fuse::{self, MountOptions};

/// Mounts at one place that are undone at most, so that this ends whatever happens.
const MAX_MOUNTS: usize = 16;

/// A new file system on `device`, not attached anywhere yet.
pub fn new(device: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    let options = MountOptions { source: "sysbox-fs", subtype: "sysbox-fs", root_mode: 0o40555 };
    fuse::mount(device, &options).context("mounting a FUSE file system (this needs root)")
}

/// Attaches the file system at `mountpoint`, in place of what a dead daemon left there.
pub fn replace(mount: BorrowedFd<'_>, mountpoint: &Path) -> anyhow::Result<()> {
    unmount_all(mountpoint);
    fs::create_dir_all(mountpoint)
        .with_context(|| format!("making the mount point {}", mountpoint.display()))?;
    fuse::attach(mount, mountpoint)
        .with_context(|| format!("attaching the FUSE file system at {}", mountpoint.display()))?;
    keep_apart(mountpoint)
}

/// Has nothing that is mounted on a copy of this mount appear here, or the other way round.
///
/// systemd shares all mounts with their copies. The files in containers are copies of this one, so
/// that what a container mounts on its `/proc/meminfo` would appear on the host.
pub fn keep_apart(mountpoint: &Path) -> anyhow::Result<()> {
    // Nobody is asked: the walk ends at the root of the file system.
    mount_change(mountpoint, MountPropagationFlags::PRIVATE)
        .with_context(|| format!("making the mount at {} a private one", mountpoint.display()))
}

/// Whether a file system is mounted at `mountpoint`.
pub fn is_mounted(mountpoint: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let escaped = escape(mountpoint);
    table.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

/// Undoes all mounts at `mountpoint`; what still uses them keeps them until it is done.
pub fn unmount_all(mountpoint: &Path) {
    for _ in 0..MAX_MOUNTS {
        if !is_mounted(mountpoint) {
            return;
        }
        if let Err(e) = unmount(mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!("unmounting {}: {e}", mountpoint.display());
            return;
        }
    }
}

/// A path as the mount table spells it.
fn escape(path: &Path) -> String {
    let special = |c| matches!(c, ' ' | '\t' | '\n' | '\\');
    let spell = |c: char| {
        if special(c) { format!("\\{:03o}", c as u32) } else { c.to_string() }
    };
    path.to_string_lossy().chars().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_understood() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
        assert_eq!(escape(Path::new("/a b\\")), "/a\\040b\\134");
    }
}
