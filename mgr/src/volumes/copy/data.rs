//! The contents of a file: shared with the source where the file system can, holes stay holes.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::{Errno, pread, pwrite};

/// Bytes per call: small enough to be interrupted by a dying process.
const CHUNK: usize = 1 << 26;

/// Copies `size` bytes of `source` to the empty file `target`. `original`: the file behind `source`.
pub(super) fn copy(
    source: BorrowedFd<'_>,
    original: impl FnOnce() -> Option<OwnedFd>,
    target: BorrowedFd<'_>,
    size: u64,
) -> io::Result<()> {
    // A reflink shares the blocks (btrfs, xfs, bcachefs); elsewhere this fails at once, and of another
    // file system with EXDEV.
    match if size > 0 { ioctl_ficlone(target, source) } else { Err(Errno::OPNOTSUPP) } {
        Ok(()) => return Ok(()),
        Err(Errno::XDEV) if original().is_some_and(|o| ioctl_ficlone(target, o).is_ok()) => {
            return Ok(());
        }
        Err(_) => {}
    }
    ftruncate(target, size)?;
    let mut offset = 0;
    while offset < size {
        let (start, end) = match seek(source, SeekFrom::Data(offset)) {
            Ok(start) => (start, seek(source, SeekFrom::Hole(start))?.min(size)),
            // Only holes up to the end.
            Err(Errno::NXIO) => break,
            // No notion of holes there: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (offset, size),
            Err(e) => return Err(e.into()),
        };
        if start >= end {
            break;
        }
        extent(source, target, start, end)?;
        offset = end;
    }
    Ok(())
}

/// Copies the bytes from `start` to `end`; stops early where the source has become shorter.
fn extent(source: BorrowedFd<'_>, target: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(CHUNK).min(CHUNK);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::IO) => {
                return by_hand(source, target, from, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    // Some file systems answer 0 for data that is there.
    by_hand(source, target, from, end)
}

/// Reads and writes.
fn by_hand(source: BorrowedFd<'_>, target: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    let mut offset = start;
    while offset < end {
        let wanted = usize::try_from(end - offset).unwrap_or(buffer.len()).min(buffer.len());
        let got = match pread(source, &mut buffer[..wanted], offset) {
            Ok(0) => break,
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let mut written = 0;
        while written < got {
            match pwrite(target, &buffer[written..got], offset + written as u64) {
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        offset += got as u64;
    }
    Ok(())
}
