//! What a container's volumes live as long as: a directory that the engine removes with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
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
    let mount = crate::registry::process::fdinfo(root.as_fd(), "mnt_id:")?;
    let mountinfo = std::fs::read("/proc/self/mountinfo").ok()?;
    upper_in(&mountinfo, mount).filter(|path| path.is_absolute())
}

/// The `upperdir` option of the overlay with this mount id, proc_pid_mountinfo(5).
fn upper_in(mountinfo: &[u8], mount: i32) -> Option<PathBuf> {
    let id = format!("{mount} ");
    let line = mountinfo.split(|&b| b == b'\n').find(|line| line.starts_with(id.as_bytes()))?;
    let separator = b" - overlay ";
    let start = line.windows(separator.len()).position(|w| w == separator)?;
    let options = line[start + separator.len()..].splitn(2, |&b| b == b' ').nth(1)?;
    let upper = options.split(|&b| b == b',').find_map(|o| o.strip_prefix(b"upperdir="))?;
    Some(PathBuf::from(OsString::from_vec(unescape(upper))))
}

/// Undoes the `\ooo` of the kernel's `seq_escape()`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = digits {
            out.push(
                digits.iter().fold(0u8, |value, d| value.wrapping_mul(8).wrapping_add(d - b'0')),
            );
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
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
    fn the_upper_directory_is_found_by_mount_id() {
        let text = b"30 1 0:1 / / rw - ext4 /dev/vda rw\n\
            305 30 0:44 / /m rw,relatime shared:9 - overlay overlay rw,lowerdir=/a:/b,upperdir=/x\\040y\\054z/diff,workdir=/w\n";
        assert_eq!(upper_in(text, 305), Some(PathBuf::from("/x y,z/diff")));
        assert_eq!(upper_in(text, 30), None);
        assert_eq!(upper_in(text, 5), None);
    }

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
