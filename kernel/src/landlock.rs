//! Landlock: a thread gives up access to files and more, for itself and all that it starts.
//!
//! See `Documentation/userspace-api/landlock.rst`. Rights that a kernel does not know are left out:
//! what it can't forbid it does not forbid.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use bitflags::bitflags;
use rustix::fs::{CWD, Mode, OFlags, openat};

bitflags! {
    /// `LANDLOCK_ACCESS_FS_*`: what may be done with files below a directory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u64 {
        /// Executing files.
        const EXECUTE = 1;
        /// Writing to files.
        const WRITE_FILE = 1 << 1;
        /// Reading files.
        const READ_FILE = 1 << 2;
        /// Listing directories.
        const READ_DIR = 1 << 3;
        /// Removing directories.
        const REMOVE_DIR = 1 << 4;
        /// Removing or renaming files.
        const REMOVE_FILE = 1 << 5;
        /// Making character devices.
        const MAKE_CHAR = 1 << 6;
        /// Making directories.
        const MAKE_DIR = 1 << 7;
        /// Making regular files.
        const MAKE_REG = 1 << 8;
        /// Making sockets.
        const MAKE_SOCK = 1 << 9;
        /// Making pipes.
        const MAKE_FIFO = 1 << 10;
        /// Making block devices.
        const MAKE_BLOCK = 1 << 11;
        /// Making symbolic links.
        const MAKE_SYM = 1 << 12;
        /// Linking and renaming between directories (ABI 2).
        const REFER = 1 << 13;
        /// Truncating files (ABI 3).
        const TRUNCATE = 1 << 14;
        /// ioctl(2) of devices that are opened later (ABI 5).
        const IOCTL_DEV = 1 << 15;
    }
}

/// `LANDLOCK_ACCESS_NET_BIND_TCP` and `LANDLOCK_ACCESS_NET_CONNECT_TCP` (ABI 4).
const NET_ALL: u64 = 3;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL` (ABI 6).
const SCOPE_ALL: u64 = 3;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const GET_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttr {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    access: u64,
    parent: i32,
}

/// The newest interface that the kernel has, from 1 on.
///
/// # Errors
/// `ENOSYS` or `EOPNOTSUPP` where Landlock is not built in or not switched on.
pub fn version() -> io::Result<u32> {
    // SAFETY: with this flag and no attributes the call only returns a number.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            GET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

/// Takes from the calling thread every access to files but `allowed` (what may be done below which
/// directory), every TCP connection, signals to processes outside and abstract sockets from
/// outside; mounting, too. Descriptors that are open already stay usable. The thread must have set
/// `no_new_privs`.
///
/// # Errors
/// Those of [`version`], and a directory that can't be opened.
pub fn restrict_thread(allowed: &[(&Path, Access)]) -> io::Result<()> {
    let version = version()?;
    let known = match version {
        1 => Access::REFER.bits() - 1,
        2 => Access::TRUNCATE.bits() - 1,
        3 | 4 => Access::IOCTL_DEV.bits() - 1,
        _ => Access::all().bits(),
    };
    let attr = RulesetAttr {
        access_fs: known,
        access_net: if version >= 4 { NET_ALL } else { 0 },
        scoped: if version >= 6 { SCOPE_ALL } else { 0 },
    };
    let size = match version {
        ..4 => 8,
        4 | 5 => 16,
        _ => size_of::<RulesetAttr>(),
    };
    // SAFETY: `attr` is valid for `size` bytes; the call only reads it.
    let ruleset =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0) };
    if ruleset < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    for (path, access) in allowed {
        let dir = openat(CWD, *path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        add_rule(ruleset.as_fd(), dir.as_fd(), access.bits() & known)?;
    }
    // SAFETY: takes a descriptor and flags only.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn add_rule(ruleset: BorrowedFd<'_>, dir: BorrowedFd<'_>, access: u64) -> io::Result<()> {
    let attr = PathBeneathAttr { access, parent: dir.as_raw_fd() };
    let ruleset = ruleset.as_raw_fd();
    // SAFETY: `attr` is a valid structure of the rule's type; the call only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset, PATH_BENEATH, &raw const attr, 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_is_allowed_is_left() {
        if version().is_err() {
            eprintln!("skipped: no Landlock");
            return;
        }
        let (mine, other) = (tempdir("mine"), tempdir("other"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                rustix::thread::set_no_new_privs(true).unwrap();
                let write = Access::WRITE_FILE | Access::MAKE_REG | Access::TRUNCATE;
                restrict_thread(&[(&mine, write), (Path::new("/proc"), Access::READ_FILE)])
                    .unwrap();
                fs::read("/proc/self/stat").unwrap();
                fs::write(mine.join("a"), "x").unwrap();
                let denied = Some(rustix::io::Errno::ACCESS.raw_os_error());
                let error = |result: io::Result<()>| result.unwrap_err().raw_os_error();
                assert_eq!(error(fs::write(other.join("a"), "x")), denied);
                assert_eq!(error(fs::read("/etc/passwd").map(drop)), denied);
                assert_eq!(error(fs::read(mine.join("a")).map(drop)), denied);
                assert_eq!(error(fs::remove_file(mine.join("a"))), denied);
            });
        });
        fs::write(other.join("a"), "x").unwrap();
        [mine, other].iter().for_each(|dir| fs::remove_dir_all(dir).unwrap());
    }

    fn tempdir(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("landlock-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        dir
    }
}
