//! Where a mount goes: every destination is looked up once, inside the container's root, and from
//! then on is a descriptor. The image decides what its paths are, so symbolic links are followed
//! as if the root file system were `/`, and magic links never.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat2, readlinkat,
};
use rustix::io::Errno;

/// What to make where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644, in a directory that is made as well.
    File,
}

/// Opens `path` inside `root` without making anything; `None` if it does not exist.
pub fn find(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>> {
    match open(root, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("look up {} in the container", path.display())),
    }
}

/// Opens `path` inside `root`, making what is missing.
pub fn make(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> Result<OwnedFd> {
    if let Some(found) = find(root, path)? {
        let is_dir = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory;
        return match (kind, is_dir) {
            (Kind::Directory, true) | (Kind::File, false) => Ok(found),
            (Kind::Directory, false) => {
                bail!("mount destination {} is not a directory in the image", path.display())
            }
            (Kind::File, true) => {
                bail!(
                    "mount destination {} is a directory in the image, the source is a file",
                    path.display()
                )
            }
        };
    }
    make_missing(root, path, kind)
}

/// How many dangling links are followed, as the kernel follows links.
const LINKS: usize = 40;

/// Makes what is missing of a path, following links that dangle (runc does: images have
/// /etc/resolv.conf as a link into an empty /run).
fn make_missing(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> Result<OwnedFd> {
    let mut links = 0;
    let mut left: VecDeque<OsString> = parts(path);
    // What is there already; the kernel looks it up anew for each name, so ".." means what it says.
    let mut so_far = PathBuf::from("/");
    let mut parent = open(root, &so_far)?;
    while let Some(name) = left.pop_front() {
        let next = so_far.join(&name);
        parent = match open(root, &next) {
            Err(Errno::NOENT) => match readlinkat(&parent, &name, Vec::new()) {
                Ok(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP).with_context(|| making(path));
                    }
                    let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
                    if target.is_absolute() {
                        so_far = PathBuf::from("/");
                    }
                    let mut all = parts(&target);
                    all.append(&mut left);
                    left = all;
                    parent = open(root, &so_far)?;
                    continue;
                }
                Err(_) => {
                    make_one(&parent, &name, left.is_empty() && kind == Kind::File)
                        // Opened through the parent that is held: what was made is what is used.
                        .and_then(|()| open(parent.as_fd(), Path::new(&name)))
                }
            },
            other => other,
        }
        .with_context(|| making(&next))?;
        so_far = next;
    }
    Ok(parent)
}

fn make_one(parent: &OwnedFd, name: &OsStr, file: bool) -> rustix::io::Result<()> {
    let made = if file {
        mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
    } else {
        mkdirat(parent, name, Mode::from_raw_mode(0o755))
    };
    if made == Err(Errno::EXIST) { Ok(()) } else { made }
}

/// The names of a path, `..` among them.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

fn making(path: &Path) -> String {
    format!("make the mount destination {} in the container's root file system", path.display())
}

fn open(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn absolute_links_stay_inside() {
        let (dir, fd) = root();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("link")).unwrap();
        make(fd.as_fd(), Path::new("/link/a/b"), Kind::Directory).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
    }

    #[test]
    fn dot_dot_cannot_leave() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("../../../..", dir.path().join("up")).unwrap();
        make(fd.as_fd(), Path::new("/up/inside"), Kind::File).unwrap();
        assert!(dir.path().join("inside").is_file());
    }

    #[test]
    fn dangling_links_are_followed_inside() {
        let (dir, fd) = root();
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        };
        link("/new/dir", "jump");
        link("/jump/x/hosts", "hosts");
        make(fd.as_fd(), Path::new("/hosts"), Kind::File).unwrap();
        assert!(dir.path().join("new/dir/x/hosts").is_file());
        link("../../../run/resolv.conf", "resolv.conf");
        make(fd.as_fd(), Path::new("/resolv.conf"), Kind::File).unwrap();
        assert!(dir.path().join("run/resolv.conf").is_file());
        link("loop2", "loop1");
        link("loop1", "loop2");
        assert!(make(fd.as_fd(), Path::new("/loop1/x"), Kind::Directory).is_err());
    }
}
