//! The file behind a file of an overlay.
//!
//! A file system shares blocks only between files of its own, and a file of an overlay counts as
//! another's. So the layers are looked through for the one that the overlay shows.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

/// The layers of an overlay, topmost first, and the directory in it that is copied.
#[derive(Debug)]
pub struct Originals<'a> {
    layers: &'a [OwnedFd],
    below: &'a Path,
}

impl<'a> Originals<'a> {
    /// For a copy of the directory `below` of the overlay of these `layers`.
    pub fn new(layers: &'a [OwnedFd], below: &'a Path) -> Self {
        Self { layers, below }
    }

    /// For a source that is no overlay.
    pub fn none() -> Self {
        Self { layers: &[], below: Path::new("") }
    }

    /// The file that shows at `path` below the directory, open for reading. `shown`: what the overlay
    /// says of it, where the inode number is the original's if all layers share a file system.
    pub fn open(&self, path: &Path, shown: &Stat) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = self.below.join(path);
        for layer in self.layers {
            // Looked at before it is opened for reading: it could be a device.
            let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = openat2(layer.as_fd(), &path, look, Mode::empty(), resolve);
            let stat = match found.and_then(fstat) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(_) => return None,
            };
            let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && (stat.st_ino, stat.st_size) == (shown.st_ino, shown.st_size)
                && (stat.st_mtime, stat.st_mtime_nsec) == (shown.st_mtime, shown.st_mtime_nsec);
            if same {
                return openat2(layer.as_fd(), &path, flags, Mode::empty(), resolve).ok();
            }
        }
        None
    }
}
