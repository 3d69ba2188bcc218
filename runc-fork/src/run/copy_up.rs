//! `tmpcopyup`: a tmpfs that starts with what the image has at its place.
//!
//! The image's files are read through a clone of the root file system's mount, which shows what the
//! tmpfs covers. They are the image's: links are copied and never followed, and the depth is
//! bounded.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use linux_raw_sys::general::MOUNT_ATTR_RDONLY;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmodat, chownat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use sysbox_kernel::mount::{Attributes, clone_tree, set_attributes};

use super::tree;
use crate::plan::{Plan, Source};

/// Directories within directories; an image's /etc or /var/lib have a few.
const MAX_DEPTH: usize = 64;

/// Fills every tmpfs of the plan that asks for it. `root` is the finished tree.
pub fn fill(plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    let wanted = |m: &&crate::plan::MountPlan| m.options.copy_up && m.source == Source::Tmpfs;
    for mount in plan.mounts.iter().filter(wanted) {
        let what = || format!("copy the image's files to {}", mount.destination.display());
        let image = clone_tree(root, Path::new(""), false).with_context(what)?;
        let Some(from) = tree::find(image.as_fd(), &mount.destination).with_context(what)? else {
            continue;
        };
        let to = tree::find(root, &mount.destination).with_context(what)?.with_context(what)?;
        let read_only = mount.options.read_only();
        if read_only {
            set_read_only(&to, false).with_context(what)?;
        }
        copy_directory(from.as_fd(), to.as_fd(), 0).with_context(what)?;
        if read_only {
            set_read_only(&to, true).with_context(what)?;
        }
    }
    Ok(())
}

fn set_read_only(mount: &OwnedFd, on: bool) -> io::Result<()> {
    let bit = u64::from(MOUNT_ATTR_RDONLY);
    let (set, clear) = if on { (bit, 0) } else { (0, bit) };
    set_attributes(mount, Attributes { set, clear, propagation: None }, false)
}

/// Both are O_PATH descriptors of directories.
fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    ensure!(depth < MAX_DEPTH, "directories are nested deeper than {MAX_DEPTH}");
    let readable = open_directory(from, ".")?;
    for entry in Dir::read_from(&readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let name = name.to_str().context("a name that is not UTF-8")?;
        copy_entry(from, to, name, depth).with_context(|| format!("copy {name:?}"))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str, depth: usize) -> Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let made = match kind {
        FileType::Directory => mkdirat(to, name, Mode::from_raw_mode(0o700)),
        FileType::Symlink => symlinkat(&readlinkat(from, name, Vec::new())?, to, name),
        FileType::RegularFile => copy_file(from, to, name),
        // Device nodes of an image mean nothing on a tmpfs that is mounted nodev; FIFOs are kept.
        FileType::Fifo => mknodat(to, name, kind, mode, 0),
        _ => return Ok(()),
    };
    match made {
        Ok(()) => {}
        // A mount point that another mount of the spec needed: its directory is filled, too.
        Err(Errno::EXIST) if kind == FileType::Directory => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e.into()),
    }
    if kind == FileType::Directory {
        let (from, to) = (open_directory(from, name)?, open_directory(to, name)?);
        copy_directory(from.as_fd(), to.as_fd(), depth + 1)?;
    }
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    #[allow(clippy::unnecessary_cast)] // the types differ between architectures
    let time = |tv_sec, tv_nsec: u64| Timespec { tv_sec, tv_nsec: tv_nsec as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    };
    Ok(utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    let copied = io::copy(&mut File::from(source), &mut File::from(target));
    copied.map(drop).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn open_directory(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_and_links_are_not_followed() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "text").unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        fs::create_dir(to.path().join("d")).unwrap();
        let open = |dir: &tempfile::TempDir| OwnedFd::from(File::open(dir.path()).unwrap());
        copy_directory(open(&from).as_fd(), open(&to).as_fd(), 0).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("d/f")).unwrap(), "text");
        let mode = fs::metadata(to.path().join("d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), Path::new("/etc/passwd"));
    }
}
