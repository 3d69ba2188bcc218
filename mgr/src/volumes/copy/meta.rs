//! Owner, mode, extended attributes and times of one object.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, getxattr, listxattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::proc_path;

/// Gives `target` what `source` (whose `stat` is given) has.
///
/// Both are reached by /proc/self/fd, which finds the object of an `O_PATH` descriptor, a symlink's
/// too. The order matters: changing the owner clears set-id bits and file capabilities.
pub(super) fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let empty = AtFlags::EMPTY_PATH;
    chownat(target, "", Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), empty)?;
    let path = proc_path(target);
    let is_symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    if !is_symlink {
        // A symlink has no mode of its own.
        chmodat(CWD, &path, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    attributes(source, &path)?;
    let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    };
    utimensat(CWD, &path, &times, AtFlags::empty())?;
    Ok(())
}

fn attributes(source: BorrowedFd<'_>, target: &str) -> io::Result<()> {
    let all = |_: &CStr| true;
    attributes_of(source, all, |name, value| {
        match setxattr(target, name, value, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            // A label of the host's security module belongs to the place, not to the contents.
            Err(Errno::OPNOTSUPP) if name.to_bytes().starts_with(b"security.selinux") => Ok(()),
            Err(e) => {
                let name = name.to_string_lossy();
                let e = io::Error::from(e);
                Err(io::Error::new(e.kind(), format!("setting attribute {name}: {e}")))
            }
        }
    })
}

/// Calls `each` with name and value of every attribute of `source` that is `wanted`.
pub fn attributes_of(
    source: BorrowedFd<'_>,
    wanted: impl Fn(&CStr) -> bool,
    mut each: impl FnMut(&CStr, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let source = proc_path(source);
    let mut names = Vec::new();
    match fill(&mut names, |buffer| listxattr(&source, buffer)) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    let mut value = Vec::new();
    for name in names.split_inclusive(|&b| b == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if wanted(name) {
            fill(&mut value, |buffer| getxattr(&source, name, buffer))?;
            each(name, &value)?;
        }
    }
    Ok(())
}

/// Calls `get` with a buffer that grows until the answer fits.
fn fill(
    buffer: &mut Vec<u8>,
    get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<()> {
    // 64 KiB is the most that the kernel returns (XATTR_LIST_MAX, XATTR_SIZE_MAX).
    for size in [256, 4096, 65536] {
        buffer.resize(size, 0);
        match get(buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(());
            }
            Err(Errno::RANGE) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::RANGE)
}
