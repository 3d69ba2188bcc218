//! Copies a tree as it is: what an image holds in the place of a volume.
//!
//! Inner images that were built into an image are layers with device nodes, extended attributes and
//! hard links that must come over unchanged. The source is hostile, so every entry is opened once,
//! as an `O_PATH` descriptor that nothing follows, and only that descriptor is used afterwards. The
//! destination is a new directory that nobody else can reach.
//!
//! Ids are copied as they are: on disk a container's ids are unshifted.

mod data;
pub(super) mod meta;
mod originals;

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, linkat, mkdirat, mknodat, openat,
    readlinkat, symlinkat,
};

pub use originals::Originals;

/// Deepest nesting that is copied; two descriptors are open per level.
const MAX_DEPTH: usize = 400;

/// A directory that is being copied.
struct Level {
    source: OwnedFd,
    target: OwnedFd,
    stat: Stat,
    /// Names still to be copied.
    names: Vec<CString>,
    /// Path of `target` below the tree's root, for hard links.
    path: PathBuf,
}

impl Level {
    fn new(source: OwnedFd, target: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&source)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        let stat = fstat(&source)?;
        Ok(Self { source, target, stat, names, path })
    }
}

/// Copies what is in `source`, and its own owner, mode, times and attributes, to the empty
/// directory `target`. Returns the number of entries copied.
///
/// `originals`: where the data can be shared, if the source is an overlay.
///
/// Errors name the entry at which the copy stopped.
pub fn tree(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    originals: &Originals<'_>,
) -> io::Result<u64> {
    let here = |fd: BorrowedFd<'_>| openat(fd, ".", DIRECTORY, Mode::empty());
    let mut links = HashMap::new();
    let mut entries = 0;
    let mut levels = vec![Level::new(here(source)?, here(target)?, PathBuf::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            // Last, for what is written into a directory changes its times.
            let named = |e| at(&level.path, e);
            meta::copy(level.source.as_fd(), level.target.as_fd(), &level.stat).map_err(named)?;
            levels.pop();
            continue;
        };
        entries += 1;
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        let below =
            entry(level, &name, &path, target, originals, &mut links).map_err(|e| at(&path, e))?;
        if let Some(below) = below {
            if levels.len() >= MAX_DEPTH {
                let why = format!("directories are nested more than {MAX_DEPTH} deep");
                return Err(at(&path, io::Error::other(why)));
            }
            levels.push(below);
        }
    }
    Ok(entries)
}

/// Directories are opened for reading; what else is found under the name is refused.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Files that were copied and have more names: device and inode of the source to path of the copy.
type Links = HashMap<(u64, u64), PathBuf>;

/// Copies one entry; a directory is only made, and returned to be filled.
fn entry(
    level: &Level,
    name: &CStr,
    path: &std::path::Path,
    root: BorrowedFd<'_>,
    originals: &Originals<'_>,
    links: &mut Links,
) -> io::Result<Option<Level>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = match openat(&level.source, name, flags, Mode::empty()) {
        // An overlay lists the whiteouts of a layer that it has nothing to merge with.
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let stat = fstat(&source)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let private = Mode::from_raw_mode(0o600);

    if kind == FileType::Directory {
        mkdirat(&level.target, name, Mode::from_raw_mode(0o700))?;
        let target = openat(&level.target, name, DIRECTORY, Mode::empty())?;
        let source = openat(&source, ".", DIRECTORY, Mode::empty())?;
        return Level::new(source, target, path.to_owned()).map(Some);
    }
    if stat.st_nlink > 1 {
        if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
            linkat(root, first, &level.target, name, AtFlags::empty())?;
            return Ok(None);
        }
        links.insert((stat.st_dev, stat.st_ino), path.to_owned());
    }
    let target = match kind {
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = openat(&level.target, name, flags, private)?;
            let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::open(proc_path(source.as_fd()), read, Mode::empty())?;
            let original = || originals.open(path, &stat);
            data::copy(source.as_fd(), original, target.as_fd(), stat.st_size as u64)?;
            target
        }
        FileType::Symlink => {
            symlinkat(readlinkat(&source, "", Vec::new())?, &level.target, name)?;
            openat(&level.target, name, flags, Mode::empty())?
        }
        // Device nodes (a whiteout is one: 0,0), FIFOs and sockets are made anew, never opened.
        _ => {
            mknodat(&level.target, name, kind, private, stat.st_rdev)?;
            openat(&level.target, name, flags, Mode::empty())?
        }
    };
    meta::copy(source.as_fd(), target.as_fd(), &stat)?;
    Ok(None)
}

fn at(path: &std::path::Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("at {:?}: {error}", path.display().to_string()))
}

/// A path by which the kernel finds exactly the object of a descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The path that the kernel tells for a descriptor: for comparing and messages, not for opening.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    std::fs::read_link(proc_path(fd)).ok()
}

#[cfg(test)]
mod tests;
