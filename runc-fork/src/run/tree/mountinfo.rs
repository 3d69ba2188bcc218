//! What `/proc/self/mountinfo` tells of one mount, proc_pid_mountinfo(5).

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, StatxFlags, statx};

/// One line of mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Mount id, as `statx(STATX_MNT_ID)` gives it.
    pub id: u64,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Options of the mount itself, e.g. `rw,nosuid`.
    pub options: String,
    /// File system type.
    pub fs_type: String,
    /// Options of the superblock, with the kernel's octal escapes: split at commas first, then
    /// [`unescape`].
    pub super_options: String,
}

impl Mount {
    /// The mount that `fd` lies in.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        let stat = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .context("ask for the mount id of the root file system")?;
        let text =
            std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        text.lines()
            .filter_map(Self::parse)
            .find(|mount| mount.id == stat.stx_mnt_id)
            .context("the root file system's mount is not in /proc/self/mountinfo")
    }

    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let id = left.next()?.parse().ok()?;
        let mount_point = unescape(left.nth(3)?);
        let options = left.next()?.to_owned();
        let mut right = right.split(' ');
        let fs_type = right.next()?.to_owned();
        let super_options = right.nth(1)?.to_owned();
        Some(Self { id, mount_point: mount_point.into(), options, fs_type, super_options })
    }
}

/// Where something is mounted below `directory`, relative to it; not what is mounted on that in turn.
pub fn outermost_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let text =
        std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(outermost(text.lines().filter_map(Mount::parse), directory))
}

fn outermost(mounts: impl Iterator<Item = Mount>, directory: &Path) -> Vec<PathBuf> {
    let below = |mount: Mount| mount.mount_point.strip_prefix(directory).ok().map(Path::to_owned);
    let mut paths: Vec<PathBuf> = mounts.filter_map(below).collect();
    paths.sort();
    let mut outermost: Vec<PathBuf> = Vec::new();
    for path in paths {
        let covered = outermost.iter().any(|outer| path.starts_with(outer));
        if !path.as_os_str().is_empty() && !covered {
            outermost.push(path);
        }
    }
    outermost
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
pub fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let octal = (bytes[index] == b'\\')
            .then(|| text.get(index + 1..index + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                result.push(byte);
                index += 4;
            }
            None => {
                result.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&result).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below() {
        let lines = ["/", "/a", "/a/b/c", "/a/b", "/a/b", "/ab", "/a/d\\040e"];
        let mounts = lines.iter().map(|point| format!("1 2 0:1 / {point} rw - tmpfs tmpfs rw"));
        let mounts = mounts.map(|line| Mount::parse(&line).unwrap());
        assert_eq!(outermost(mounts, Path::new("/a")), ["b", "d e"].map(PathBuf::from));
    }

    #[test]
    fn a_line_with_optional_fields_and_a_space() {
        let line = r"36 35 98:0 /a /mnt\0402 rw,noatime master:1 shared:2 - overlay ov rw,lowerdir=/x\054y";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.mount_point, PathBuf::from("/mnt 2"));
        assert_eq!(mount.options, "rw,noatime");
        assert_eq!(mount.fs_type, "overlay");
        assert_eq!(mount.super_options, r"rw,lowerdir=/x\054y");
        assert_eq!(unescape(&mount.super_options), "rw,lowerdir=/x,y");
    }
}
