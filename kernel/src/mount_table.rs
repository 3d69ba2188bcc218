//! One mount and those that are on it, without reading the whole mount table: statmount(2) and
//! listmount(2) of Linux 6.8, for the mount namespace that the calling thread is in; and whether a mount
//! is there in any mount namespace (6.11).
//!
//! The kernel writes a line of `/proc/PID/mountinfo` in about as much time as it answers one
//! statmount(2), but the table has a line for each of hundreds of mounts.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use linux_raw_sys::general::{
    __NR_listmount, __NR_statmount, MOUNT_ATTR_RDONLY, STATMOUNT_MNT_BASIC, STATMOUNT_MNT_POINT,
    STATMOUNT_SB_BASIC, STATX_MNT_ID_UNIQUE, mnt_id_req, statmount,
};
use rustix::fs::{AtFlags, StatxFlags, statx};

/// Longest path of a mount point with its end mark (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;
/// As many ids as one listmount(2) is asked for.
const IDS_AT_ONCE: usize = 512;

/// The id of a mount that is never given again, unlike that of mountinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountId(u64);

/// The number of a mount namespace, which is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceId(u64);

impl From<u64> for MountId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<MountId> for u64 {
    fn from(MountId(number): MountId) -> Self {
        number
    }
}

impl From<u64> for NamespaceId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What the kernel tells about a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its id in mountinfo.
    pub number: u64,
    /// That of the mount that it is on.
    pub parent_number: u64,
    /// The mount that it is on.
    pub parent: MountId,
    /// Device of its file system, as in `st_dev`.
    pub device: u64,
    /// What kind of file system it is, as in `f_type` of statfs(2).
    pub magic: u64,
    /// Whether the mount (not its file system) is read-only.
    pub read_only: bool,
    /// Whether mounts and umounts on it appear in other mount namespaces, too.
    pub shared: bool,
    /// Where it is, below the root of the mount namespace.
    pub point: Vec<u8>,
}

/// The mount that something is on. Asks no file system but by this request for what only the kernel
/// knows.
///
/// # Errors
/// `EINVAL` before Linux 6.8; `EACCES` on a FUSE file system that does not talk to the caller.
pub fn mount_of(object: impl AsFd) -> io::Result<MountId> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let found = statx(object, "", flags, wanted)?;
    match found.stx_mask & STATX_MNT_ID_UNIQUE {
        0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        _ => Ok(MountId(found.stx_mnt_id)),
    }
}

/// A `struct statmount` with its strings.
#[repr(C)]
struct Answer {
    head: statmount,
    strings: [u8; LONGEST_PATH],
}

/// What statmount(2) may write to.
///
/// # Safety
/// All bytes of it may be zero or anything else.
unsafe trait Plain {}
// SAFETY: integers, and arrays of them.
unsafe impl Plain for statmount {}
// SAFETY: likewise.
unsafe impl Plain for Answer {}

/// Asks statmount(2); an answer that has no room for strings is told none.
fn ask<T: Plain>(request: &mnt_id_req) -> io::Result<T> {
    let mut answer = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the kernel reads a live request of the size that it names, and writes no more than the
    // size that is passed into `answer`, which is borrowed for that long.
    let result = unsafe {
        libc::syscall(
            __NR_statmount.into(),
            std::ptr::from_ref(request),
            answer.as_mut_ptr(),
            size_of::<T>(),
            0,
        )
    };
    match result {
        // SAFETY: it was zeroed before the kernel wrote to it, and any bytes are a `T`.
        0 => Ok(unsafe { answer.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Looks at a mount.
///
/// # Errors
/// `ENOENT` if it is not in the mount namespace of the calling thread; `ENOSYS` before Linux 6.8.
pub fn describe(id: MountId) -> io::Result<Mounted> {
    let wanted = STATMOUNT_SB_BASIC | STATMOUNT_MNT_BASIC | STATMOUNT_MNT_POINT;
    let request = request(id, u64::from(wanted));
    let Answer { head, strings } = ask(&request)?;
    let point = strings.get(head.mnt_point as usize..).unwrap_or_default();
    let point = point.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(Mounted {
        number: head.mnt_id_old.into(),
        parent_number: head.mnt_parent_id_old.into(),
        parent: MountId(head.mnt_parent_id),
        device: rustix::fs::makedev(head.sb_dev_major, head.sb_dev_minor),
        magic: head.sb_magic,
        read_only: head.mnt_attr & u64::from(MOUNT_ATTR_RDONLY) != 0,
        shared: head.mnt_propagation & libc::MS_SHARED != 0,
        point: point.to_vec(),
    })
}

/// `_IOR(0xb7, 5, __u64)` of linux/nsfs.h.
const NS_GET_MNTNS_ID: libc::c_ulong = 0x8008_b705;

/// The number of the mount namespace behind a descriptor.
///
/// # Errors
/// `ENOTTY` before Linux 6.11.
pub fn namespace_of(namespace: impl AsFd) -> io::Result<NamespaceId> {
    let mut number = 0_u64;
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: the request stores one u64 at the pointer, which is live.
    match unsafe { libc::ioctl(fd, NS_GET_MNTNS_ID, std::ptr::from_mut(&mut number)) } {
        0 => Ok(NamespaceId(number)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a mount is in that mount namespace, which may be gone altogether.
///
/// # Errors
/// `EINVAL` before Linux 6.11; `EPERM` without rights over the namespace.
pub fn is_there(NamespaceId(namespace): NamespaceId, MountId(id): MountId) -> io::Result<bool> {
    // The size of the second version (`MNT_ID_REQ_SIZE_VER1`).
    let request = mnt_id_req {
        size: 32,
        spare: 0,
        mnt_id: id,
        param: STATMOUNT_MNT_BASIC.into(),
        mnt_ns_id: namespace,
    };
    match ask::<statmount>(&request) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All mounts that are on a mount, on those, and so on; the oldest first.
///
/// # Errors
/// As [`describe`].
pub fn all_on(id: MountId) -> io::Result<Vec<MountId>> {
    let mut all = Vec::new();
    loop {
        let last = all.last().map_or(0, |MountId(last)| *last);
        let request = request(id, last);
        let mut ids = [0_u64; IDS_AT_ONCE];
        // SAFETY: the kernel reads a live request of the size that it names, and writes no more than
        // the number of ids that is passed.
        let count = unsafe {
            libc::syscall(
                __NR_listmount.into(),
                std::ptr::from_ref(&request),
                ids.as_mut_ptr(),
                ids.len(),
                0,
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        all.extend(ids.iter().take(count).copied().map(MountId));
        if count < IDS_AT_ONCE {
            return Ok(all);
        }
    }
}

fn request(MountId(id): MountId, param: u64) -> mnt_id_req {
    // The size of the first version, without a mount namespace: the caller's own (`MNT_ID_REQ_SIZE_VER0`).
    mnt_id_req { size: 24, spare: 0, mnt_id: id, param, mnt_ns_id: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{attach, new_mount};
    use crate::ns::{UnshareFlags, unshare};
    use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
    use std::fs::File;

    /// Runs as root only, on Linux 6.8 and later; in a thread of its own.
    #[test]
    fn a_mount_and_what_is_on_it() {
        let own = mount_of(File::open("/").unwrap());
        if !rustix::process::geteuid().is_root() || own.is_err() {
            return;
        }
        let test = || {
            unshare(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let tmpfs = || new_mount("tmpfs", &[], MountAttrFlags::empty()).unwrap();
            attach(tmpfs(), File::open(dir.path()).unwrap()).unwrap();
            let inner = dir.path().join("a b\\c");
            std::fs::create_dir(&inner).unwrap();
            let read_only = new_mount("proc", &[], MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap();
            attach(&read_only, File::open(&inner).unwrap()).unwrap();

            let lower = mount_of(File::open(dir.path()).unwrap()).unwrap();
            let upper = mount_of(&read_only).unwrap();
            assert_eq!(all_on(lower).unwrap(), [upper]);
            assert_eq!(all_on(upper).unwrap(), []);
            let upper_id = upper;
            let (lower, upper) = (describe(lower).unwrap(), describe(upper).unwrap());
            assert_eq!((upper.parent_number, upper.magic), (lower.number, 0x9fa0));
            assert!(upper.read_only && !lower.read_only && !lower.shared);
            assert_eq!(upper.point, inner.as_os_str().as_encoded_bytes());
            let status = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(&inner).unwrap());
            assert_eq!(upper.device, status);
            let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let start = format!("{} {} ", upper.number, lower.number);
            assert!(table.lines().any(|line| line.starts_with(&start)), "{start}: {table}");
            // Also by its namespace, as long as it is there (6.11).
            let here = namespace_of(File::open("/proc/thread-self/ns/mnt").unwrap()).ok();
            let is_there = || here.map(|here| is_there(here, upper_id).unwrap());
            assert_ne!(is_there(), Some(false));
            rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();
            assert_ne!(is_there(), Some(true));
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        };
        std::thread::spawn(test).join().unwrap();
    }
}
