//! What a container's volumes live as long as: a directory that the engine removes with it.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Stat, fstat, statat, statvfs};
use serde::{Deserialize, Serialize};

/// A directory of the engine, recognised again after a reboot.
///
/// Volumes are deleted when it is gone, so "gone" must be beyond doubt. A path that is missing is not
/// enough: the disk that it lies on may not be mounted yet. Device numbers alone are not either: they
/// can change with a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Absolute path.
    pub path: PathBuf,
    /// Device number, as of the last look.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// File system id (`f_fsid`), as of the last look.
    pub fsid: u64,
}

/// Whether the owner is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// Its file system is there, and it is not.
    Gone,
    /// Its file system cannot be seen.
    Unknown,
}

impl Owner {
    /// The directory at `path` as it is now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || !path.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
        }
        let fsid = statvfs(path)?.f_fsid;
        Ok(Self { path: path.to_owned(), device: stat.st_dev, inode: stat.st_ino, fsid })
    }

    /// Whether `other` is the same directory: by path and inode, for the numbers of its file system
    /// may have changed with a reboot.
    pub fn is(&self, other: &Self) -> bool {
        self.path == other.path && self.inode == other.inode
    }

    /// Whether it is still there.
    pub fn presence(&self) -> Presence {
        match Self::of(&self.path) {
            Ok(now) if self.is(&now) => Presence::Present,
            Ok(now) if self.same_file_system(now.device, now.fsid) => Presence::Gone,
            Ok(_) => Presence::Unknown,
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                self.judge_ancestor()
            }
            Err(_) => Presence::Unknown,
        }
    }

    /// The path leads nowhere: it is gone if what is left of the path lies on its file system, and
    /// unknown if not (then a mount on the way is missing).
    fn judge_ancestor(&self) -> Presence {
        for ancestor in self.path.ancestors().skip(1) {
            if let (Ok(stat), Ok(fs)) = (statat(CWD, ancestor, AtFlags::empty()), statvfs(ancestor))
            {
                return if self.same_file_system(stat.st_dev, fs.f_fsid) {
                    Presence::Gone
                } else {
                    Presence::Unknown
                };
            }
        }
        Presence::Unknown
    }

    fn same_file_system(&self, device: u64, fsid: u64) -> bool {
        self.device == device || (self.fsid != 0 && self.fsid == fsid)
    }
}

/// The upper directory of the overlay that `root` is in, for an engine that removes that with the
/// container. `None` if it is no overlay, or one without an upper directory.
///
/// The overlay itself would not do as an owner: it goes at each stop, when the engine unmounts it.
pub fn upper_of(root: impl AsFd) -> Option<PathBuf> {
    super::mounted::of(root)?.overlay?.upper.filter(|path| path.is_absolute())
}

/// Whether `fd` is the directory at `path`.
pub fn is_at(fd: &Stat, path: &Path) -> bool {
    statat(CWD, path, AtFlags::empty())
        .is_ok_and(|at| (at.st_dev, at.st_ino) == (fd.st_dev, fd.st_ino))
}

/// Inode number of what `fd` refers to.
pub fn inode(fd: impl AsFd) -> io::Result<u64> {
    Ok(fstat(fd)?.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn gone_is_only_what_is_beyond_doubt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers/one");
        fs::create_dir_all(&path).unwrap();
        let owner = Owner::of(&path).unwrap();
        assert_eq!(owner.presence(), Presence::Present);
        let elsewhere = Owner { device: u64::MAX, fsid: 1, ..owner.clone() };
        assert_eq!(elsewhere.presence(), Presence::Present, "the numbers changed with a reboot");
        let other = Owner { inode: 1, ..elsewhere.clone() };
        assert_eq!(other.presence(), Presence::Unknown, "another file system lies there");

        fs::rename(&path, dir.path().join("layers/two")).unwrap();
        assert_eq!(owner.presence(), Presence::Gone);
        assert_eq!(elsewhere.presence(), Presence::Unknown);
        fs::create_dir(&path).unwrap();
        assert_eq!(owner.presence(), Presence::Gone, "another directory of that name");
        fs::remove_dir_all(dir.path().join("layers")).unwrap();
        assert_eq!(owner.presence(), Presence::Gone, "all of it was removed");
    }
}
