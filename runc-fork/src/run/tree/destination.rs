//! Where a mount goes: every destination is looked up once, inside the container's root, and from
//! then on is a descriptor. The image decides what its paths are, so symbolic links are followed
//! as if the root file system were `/`, and magic links never.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, mknodat, openat2};
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
    let names: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut so_far = PathBuf::from("/");
    let mut parent = open(root, &so_far)?;
    for (index, name) in names.iter().enumerate() {
        so_far.push(name);
        let next = match open(root, &so_far) {
            Err(Errno::NOENT) => {
                let last = index + 1 == names.len();
                let made = if last && kind == Kind::File {
                    mknodat(&parent, *name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
                } else {
                    mkdirat(&parent, *name, Mode::from_raw_mode(0o755))
                };
                match made {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e).with_context(|| making(&so_far)),
                }
                // Opened through the parent that is held, so that what was made is what is used.
                open(parent.as_fd(), Path::new(name))
            }
            other => other,
        };
        parent = next.with_context(|| making(&so_far))?;
    }
    Ok(parent)
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
    fn a_dangling_link_is_an_error() {
        let (dir, fd) = root();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        assert!(make(fd.as_fd(), Path::new("/link/x"), Kind::Directory).is_err());
    }
}
