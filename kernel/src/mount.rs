//! What the mount API has and `rustix` lacks: `mount_setattr(2)`, and the few compositions of the
//! new mount calls that every part uses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::features::Feature;

/// Propagation of a mount, mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// `MS_PRIVATE`
    Private,
    /// `MS_SLAVE`
    Slave,
    /// `MS_SHARED`
    Shared,
    /// `MS_UNBINDABLE`
    Unbindable,
}

/// Changes for [`set_attributes`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Bits to set, `MOUNT_ATTR_*`.
    pub set: u64,
    /// Bits to clear, `MOUNT_ATTR_*`; for the access-time bits this must hold
    /// `MOUNT_ATTR__ATIME` when `set` names one of them.
    pub clear: u64,
    /// New propagation, if any.
    pub propagation: Option<Propagation>,
}

/// `mount_setattr(2)` on the mount that `mount` refers to, or on its whole tree.
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    let propagation = match attributes.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Shared) => libc::MS_SHARED,
        Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
    };
    let attr = linux_raw_sys::general::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation,
        userns_fd: 0,
    };
    mount_setattr(mount.as_fd(), &attr, recursive)
}

/// ID-maps a detached mount (or its whole tree) with the mapping of `userns`.
///
/// Fails with `EINVAL` where the file system cannot be ID-mapped and `EPERM` where the mount
/// already is or was attached; `ENOSYS` before Linux 5.12.
pub fn idmap(mount: impl AsFd, userns: impl AsFd, recursive: bool) -> io::Result<()> {
    if !Feature::IdmappedMounts.may_be_used() {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let attr = linux_raw_sys::general::mount_attr {
        attr_set: u64::from(linux_raw_sys::general::MOUNT_ATTR_IDMAP),
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_fd().as_raw_fd()).unwrap_or(u64::MAX),
    };
    mount_setattr(mount.as_fd(), &attr, recursive)
}

fn mount_setattr(
    mount: BorrowedFd<'_>,
    attr: &linux_raw_sys::general::mount_attr,
    recursive: bool,
) -> io::Result<()> {
    let recursive = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, `attr` points to a live `mount_attr` whose
    // exact size is passed, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<linux_raw_sys::general::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A detached copy of the mount at `path` below `dir` (of its whole tree if `recursive`).
/// Symbolic links at the end are not followed; an empty path means `dir` itself.
pub fn clone_tree(dir: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_NO_AUTOMOUNT;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, path, flags)?)
}

/// As [`clone_tree`] of `tree` itself, with another ID mapping than the mounts have (or with one, where
/// they have none), of the top or of all of the tree. `ENOSYS` before Linux 6.15: there a mount that is
/// mapped stays as it is, see [`idmap`].
pub fn clone_remapped(tree: impl AsFd, userns: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let idmap = u64::from(linux_raw_sys::general::MOUNT_ATTR_IDMAP);
    let attr = linux_raw_sys::general::mount_attr {
        attr_set: idmap,
        attr_clr: idmap,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_fd().as_raw_fd()).unwrap_or(u64::MAX),
    };
    let mut flags = linux_raw_sys::general::OPEN_TREE_CLONE
        | linux_raw_sys::general::OPEN_TREE_CLOEXEC
        | linux_raw_sys::general::AT_EMPTY_PATH;
    if recursive {
        flags |= linux_raw_sys::general::AT_RECURSIVE;
    }
    // SAFETY: the path is a NUL-terminated constant, `attr` is a live `mount_attr` whose exact size is
    // passed, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(
            i64::from(linux_raw_sys::general::__NR_open_tree_attr),
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            size_of::<linux_raw_sys::general::mount_attr>(),
        )
    };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a detached mount over what `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", flags)?)
}

/// A new detached mount of a file system type with string options.
pub fn new_mount(
    fs_type: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if options.iter().all(|(key, _)| *key != "source") {
        // What /proc/mounts shows first; "none" otherwise.
        fsconfig_set_string(context.as_fd(), "source", fs_type)?;
    }
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?;
        } else {
            fsconfig_set_string(context.as_fd(), *key, *value)?;
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A new detached procfs of another pid namespace, by the `pidns` option of Linux 6.18. `source` is
/// what /proc/mounts shows first.
/// Older kernels answer `EINVAL`.
pub fn new_proc_of(
    pidns: impl AsFd,
    source: &str,
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", source)?;
    fsconfig_set_fd(context.as_fd(), "pidns", pidns)?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
