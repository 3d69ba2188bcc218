//! Device nodes and links in /dev.
//!
//! The nodes are made by host root on a tmpfs that the host mounted: that is what makes them open
//! (a file system mounted in a user namespace ignores device nodes). They are owned by the host
//! ids of the container's users, so they show their owners inside.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, makedev, mknodat, openat,
    symlinkat,
};
use rustix::io::Errno;
use sysbox_kernel::mount::{attach, clone_tree};

use super::destination::{Kind, make as make_directory};
use crate::plan::{Device, Plan};

/// What every container has, runtime-spec "Default Devices", as name, major, minor, mode.
const DEFAULT: &[(&str, u32, u32, u32)] = &[
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("tty", 5, 0, 0o666),
];

/// Links of runtime-spec "Dev symbolic links".
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes nodes and links. The umask is 0 and the file-system ids are the container root's.
pub fn make(plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    let dev = make_directory(root, Path::new("/dev"), Kind::Directory)?;
    for &(name, major, minor, mode) in DEFAULT {
        let node = Device::character(&format!("/dev/{name}"), major, minor, mode);
        if plan.devices.iter().all(|d| d.path != node.path) {
            make_node(plan, root, &node)?;
        }
    }
    for device in &plan.devices {
        make_node(plan, root, device)?;
    }
    for (name, target) in LINKS {
        match symlinkat(*target, &dev, *name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("make the link /dev/{name}")),
        }
    }
    if plan.terminal {
        // The console's slave is mounted over this file by init.
        let console = Path::new("/dev/console");
        make_directory(root, console, Kind::File)?;
    }
    Ok(())
}

fn make_node(plan: &Plan, root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let path = device.path.as_path();
    let what = || format!("make the device node {}", path.display());
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().with_context(what)?;
    let parent = make_directory(root, parent, Kind::Directory)?;
    let kind = FileType::from_raw_mode(device.kind);
    let mode = Mode::from_raw_mode(device.mode);
    match mknodat(&parent, name, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        // The image's own /dev, where the spec mounts nothing over it.
        Err(Errno::EXIST) => return Ok(()),
        // In a user namespace (this runtime is in a container itself) nobody makes nodes that open.
        Err(Errno::PERM) => return bind_node(root, device).with_context(what),
        Err(e) => return Err(e).with_context(what),
    }
    let uid = plan.ids.host_uid(device.uid).map(Uid::from_raw);
    let gid = plan.ids.host_gid(device.gid).map(Gid::from_raw);
    chownat(parent.as_fd(), name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).with_context(what)
}

/// Mounts the node of this machine, which here is a container, over a file.
fn bind_node(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = openat(CWD, &device.path, flags, Mode::empty()).context("open this machine's own")?;
    let found = fstat(&own)?;
    let is_it = FileType::from_raw_mode(found.st_mode) == FileType::from_raw_mode(device.kind)
        && found.st_rdev == makedev(device.major, device.minor);
    ensure!(is_it, "this machine's own is another device, and the kernel allows no new one here");
    let clone = clone_tree(&own, Path::new(""), false).context("clone this machine's own")?;
    let target = make_directory(root, &device.path, Kind::File)?;
    attach(&clone, target).context("attach this machine's own")
}
