//! Which namespaces a task is in and whose they are: the objects that rights are decided on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Identity of a namespace for as long as something keeps it alive: device and inode of its nsfs
/// file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub inode: u64,
}

/// `_IO(0xff, 9)` of linux/pidfd.h.
const PIDFD_GET_USER_NAMESPACE: libc::c_ulong = 0xff09;

/// The user namespace of the task behind a pidfd (6.11).
///
/// # Errors
/// `ENOTTY` or `EINVAL` on older kernels, `ESRCH` when the task is gone.
pub fn user_namespace_of(pidfd: impl AsFd) -> io::Result<OwnedFd> {
    new_descriptor(pidfd, PIDFD_GET_USER_NAMESPACE)
}

/// The user namespace that owns a namespace (`NS_GET_USERNS`).
///
/// # Errors
/// `EPERM` when it is no descendant of the one of this process.
pub fn owner(namespace: impl AsFd) -> io::Result<OwnedFd> {
    new_descriptor(namespace, libc::NS_GET_USERNS)
}

/// The parent of a user or pid namespace (`NS_GET_PARENT`); `None` at the top of what this process
/// may see.
pub fn parent(namespace: impl AsFd) -> io::Result<Option<OwnedFd>> {
    match new_descriptor(namespace, libc::NS_GET_PARENT) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The user who made a user namespace, as this process sees ids (`NS_GET_OWNER_UID`).
pub fn owner_uid(userns: impl AsFd) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the request stores one uid_t at the pointer, which is live.
    let result = unsafe {
        libc::ioctl(
            userns.as_fd().as_raw_fd(),
            libc::NS_GET_OWNER_UID,
            std::ptr::from_mut(&mut uid),
        )
    };
    super::check(result)?;
    Ok(uid)
}

/// The kind of the namespace behind a descriptor, as its `CLONE_NEW*` flag (`NS_GET_NSTYPE`).
///
/// # Errors
/// `ENOTTY` when it is no namespace.
pub fn kind_of(namespace: impl AsFd) -> io::Result<i32> {
    // SAFETY: the request has no argument and returns the kind.
    let kind = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    super::check(kind)?;
    Ok(kind)
}

/// The identity of the namespace behind a descriptor.
pub fn id_of(namespace: impl AsFd) -> io::Result<NamespaceId> {
    let stat = rustix::fs::fstat(namespace)?;
    Ok(NamespaceId { device: stat.st_dev, inode: stat.st_ino })
}

/// Runs a request that takes no argument and returns a new descriptor.
fn new_descriptor(fd: impl AsFd, request: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: the requests used here read no memory; their argument, where they have one, is 0.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, 0 as libc::c_ulong) };
    super::check(result)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
