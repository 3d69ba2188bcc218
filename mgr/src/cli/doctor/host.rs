//! Ids and file systems of the host.

use std::fs;
use std::path::{Path, PathBuf};

use super::Check;
use super::engines;

/// Ids of one container.
const SLOT: u64 = 65_536;
/// File systems that the kernel can ID-map (Linux 6.1 to 6.18), as proc_pid_mountinfo(5) names them.
const ID_MAPPED: &[&str] = &[
    "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay", "erofs", "vfat", "ntfs3", "squashfs",
    "zfs", "ceph", "bcachefs", "fuse",
];

/// The checks.
pub fn checks() -> Vec<Check> {
    let mut checks: Vec<_> = ["/etc/subuid", "/etc/subgid"].map(subordinate_ids).into();
    let mut places: Vec<(String, PathBuf)> =
        vec![("volumes of inner engines".to_owned(), "/var/lib/sysbox".into())];
    places.extend(engines::data_roots());
    checks.extend(places.iter().filter_map(|(what, path)| file_system(what, path)));
    checks
}

fn subordinate_ids(file: &'static str) -> Check {
    let text = fs::read_to_string(file).unwrap_or_default();
    let count = |line: &str| -> Option<u64> {
        line.strip_prefix("sysbox:")?.split(':').nth(1)?.trim().parse().ok()
    };
    let count: u64 = text.lines().filter_map(count).sum();
    let found = match count / SLOT {
        0 => Err("no entry of user sysbox with 65536 ids or more"),
        containers => Ok(format!("{count} ids, enough for {containers} containers")),
    };
    let remedy = "start sysbox-mgr, which adds one, or write `sysbox:FIRST:COUNT` with ids that no other line has";
    Check::needed(file, found, "host ids for containers", remedy)
}

/// The file system of a directory; none if the directory is not there.
fn file_system(what: &str, path: &Path) -> Option<Check> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounts.lines().rev().filter_map(mount).filter(|(at, _)| path.starts_with(at));
    let (_, kind) = kind.max_by_key(|(at, _)| at.len())?;
    let at = path.display();
    let found = match ID_MAPPED.contains(&kind) {
        true => Ok(format!("{at} is on {kind}")),
        false => Err(format!("{at} is on {kind}, which the kernel can't ID-map")),
    };
    let what = format!("file system of {what}");
    Some(Check::needed(what, found, "files with unshifted ids", "move it to ext4, xfs or btrfs"))
}

/// Mount point and type of a line of mountinfo.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    Some((before.split(' ').nth(4)?, after.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let line = "36 35 98:0 /x /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount(line), Some(("/mnt", "ext3")));
        assert_eq!(mount("garbage"), None);
    }

    #[test]
    fn the_root_is_on_some_file_system() {
        let check = file_system("everything", Path::new("/")).unwrap();
        assert!(check.found.starts_with("/ is on "), "{check:?}");
        assert!(file_system("nothing", Path::new("/does/not/exist")).is_none());
    }
}
