//! What a FUSE server needs from the kernel besides answering requests: mounting by file
//! descriptor, and taking over the connection of a server that died.
//!
//! A FUSE file system lives as long as somebody holds its `/dev/fuse` descriptor; requests that no
//! server reads just wait. So a server may be replaced: its successor gets the descriptor, skips the
//! greeting that only a new connection has ([`init_request`] lets a library play it against itself,
//! [`replace`] then puts the real device in place), and asks for the requests that the dead server
//! had taken but not answered ([`resend`]), or finds them in a [`Journal`](journal::Journal).

pub mod journal;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

/// Length of [`init_request`], bytes: `struct fuse_in_header` and `struct fuse_init_in`.
pub const INIT_REQUEST_LEN: usize = 40 + 64;

/// `FUSE_INIT` of `enum fuse_opcode`.
const OPCODE_INIT: u32 = 26;
/// `FUSE_KERNEL_VERSION` and the newest minor version whose structures are used here.
const PROTOCOL: (u32, u32) = (7, 40);
/// `FUSE_NOTIFY_RESEND` of `enum fuse_notify_code` (Linux 6.9).
const NOTIFY_RESEND: i32 = 7;
/// `FUSE_INIT_EXT`: the second word of flags is valid.
const INIT_EXT: u64 = 1 << 30;

/// How [`mount`] makes the file system.
#[derive(Debug, Clone, Copy)]
pub struct MountOptions<'a> {
    /// What the mount table shows as the device.
    pub source: &'a str,
    /// The mount table's type is `fuse.<subtype>`.
    pub subtype: &'a str,
    /// Type and permission bits of the root directory, as in `st_mode`.
    pub root_mode: u32,
}

/// Opens a new, still unconnected FUSE device.
///
/// # Errors
/// `ENOENT` or `ENODEV` where the kernel has no FUSE (module `fuse` not loaded).
pub fn open_device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a file system that is served through `device` and returns it as a detached mount (nosuid,
/// nodev, noexec). Every user may use it, and the kernel checks permission bits itself.
///
/// The kernel queues its greeting on the device at once; it needs no answer before this returns.
pub fn mount(device: BorrowedFd<'_>, options: &MountOptions<'_>) -> io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", options.source)?;
    fsconfig_set_string(&context, "subtype", options.subtype)?;
    // Of the ways to give a descriptor, FUSE takes its number as a string only.
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&context, "rootmode", format!("{:o}", options.root_mode))?;
    fsconfig_set_string(&context, "user_id", "0")?;
    fsconfig_set_string(&context, "group_id", "0")?;
    fsconfig_set_flag(&context, "allow_other")?;
    fsconfig_set_flag(&context, "default_permissions")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches a detached mount at the directory `target`.
pub fn attach(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The greeting (`FUSE_INIT`) of a kernel that offers exactly `flags` (bits as in `InitFlags`).
pub fn init_request(flags: u64) -> [u8; INIT_REQUEST_LEN] {
    let mut request = [0; INIT_REQUEST_LEN];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    let flags = flags | INIT_EXT;
    // struct fuse_in_header: len, opcode, unique, ...
    put(0, &(INIT_REQUEST_LEN as u32).to_ne_bytes());
    put(4, &OPCODE_INIT.to_ne_bytes());
    put(8, &1_u64.to_ne_bytes());
    // struct fuse_init_in: major, minor, max_readahead, flags, flags2, ...
    put(40, &PROTOCOL.0.to_ne_bytes());
    put(44, &PROTOCOL.1.to_ne_bytes());
    put(48, &(128_u32 * 1024).to_ne_bytes());
    put(52, &(flags as u32).to_ne_bytes());
    put(56, &((flags >> 32) as u32).to_ne_bytes());
    request
}

/// Makes the descriptor number of `slot` refer to the open file of `with` (dup3(2)).
///
/// For a library that owns `slot` and offers no way to exchange it. Who borrows `slot` must not rely
/// on which file it is.
pub fn replace(slot: BorrowedFd<'_>, with: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open descriptors for the whole call because they are borrowed; the
    // slot stays open, so its owner still owns exactly one descriptor of that number.
    let result = unsafe { libc::dup3(with.as_raw_fd(), slot.as_raw_fd(), libc::O_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks the kernel to queue again every request that was read from this connection and not
/// answered.
///
/// # Errors
/// `EINVAL` before Linux 6.9: such requests then wait until their callers are killed.
pub fn resend(device: BorrowedFd<'_>) -> io::Result<()> {
    // struct fuse_out_header: len, error (the notify code when unique is 0), unique.
    let mut message = [0; 16];
    message[0..4].copy_from_slice(&16_u32.to_ne_bytes());
    message[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
    rustix::io::write(device, &message)?;
    Ok(())
}

/// Tells the C library's allocator to give large blocks back to the kernel at once, always.
///
/// glibc raises its threshold for mmap(2) after the first large block is freed; a later large
/// zeroed buffer is then cleared by hand, which makes every page of it resident. A FUSE library
/// that allocates 16 MiB per thread costs nothing with the threshold fixed. Call it first in `main`.
pub fn keep_large_buffers_lazy() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator; any value is allowed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Takes over the descriptor with this number that a service manager passed to the process, as a
/// duplicate that is closed on exec.
pub fn passed_descriptor(number: i32) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this_process.as_fd(), number, PidfdGetfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_has_the_kernels_layout() {
        let request = init_request(1 << 37 | 1);
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, request.len());
        assert_eq!(word(4), 26);
        assert_eq!((word(40), word(44)), PROTOCOL);
        assert_eq!(word(52), 1 | 1 << 30);
        assert_eq!(word(56), 1 << 5);
    }

    #[test]
    fn a_replaced_slot_reads_the_other_file() {
        let slot: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let zero = std::fs::File::open("/dev/zero").unwrap();
        replace(slot.as_fd(), zero.as_fd()).unwrap();
        let mut byte = [1];
        assert_eq!(rustix::io::read(&slot, &mut byte).unwrap(), 1);
        assert_eq!(byte, [0]);
    }

    #[test]
    fn a_passed_descriptor_is_the_same_open_file() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let copy = passed_descriptor(write.as_raw_fd()).unwrap();
        rustix::io::write(&copy, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&read, &mut byte).unwrap(), 1);
    }
}
