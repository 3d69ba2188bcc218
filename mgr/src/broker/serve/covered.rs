//! Which mounts are a proc or sysfs with nothing but virtualised files on it: a pure function of the
//! mount table.

use super::super::mountinfo::Entry;
use super::emulated::Carrier;

/// A proc or sysfs that has nothing on it but virtualised files.
#[derive(Debug, PartialEq, Eq)]
pub struct Covered {
    /// Id of the mount.
    pub mount_id: u64,
    /// Last part of the path of its mount point.
    pub name: Vec<u8>,
    /// What it is.
    pub carrier: Carrier,
    /// Whether the mount is read-only, and its files with it.
    pub read_only: bool,
    /// Whether what happens to it happens in other mount namespaces, too.
    pub shared: bool,
    /// Places of its files below its root; as often as there are files on top of each other.
    pub files: Vec<Vec<u8>>,
}

/// What an umount aims at.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Covered(Covered),
    /// One virtualised file alone, which is no mount to the caller, and what it is on.
    SingleFile(Carrier),
    /// Not ours.
    Other,
}

/// Says what the mount with the id `target` is. `emulated` is the device number of the file system
/// that holds the virtualised files.
pub fn find(mounts: &[Entry], target: u64, emulated: u64) -> Found {
    let by_id = |id| mounts.iter().find(|mount| mount.id == id);
    let carrier = |mount: &Entry| Carrier::of_type(&mount.file_system);
    let Some(mount) = by_id(target) else {
        return Found::Other;
    };
    if mount.device == emulated {
        let below = by_id(mount.parent).and_then(carrier);
        return below.map_or(Found::Other, Found::SingleFile);
    }
    let Some(carrier) = carrier(mount) else {
        return Found::Other;
    };
    let mut files = Vec::new();
    // Those below it, in whatever order they are listed.
    let mut tree = vec![mount.id];
    let mut rest: Vec<&Entry> = mounts.iter().filter(|other| other.id != mount.id).collect();
    loop {
        let (below, others) = rest.into_iter().partition(|other| tree.contains(&other.parent));
        rest = others;
        let below: Vec<&Entry> = below;
        if below.is_empty() {
            break;
        }
        for child in below {
            let place = child.point.strip_prefix(mount.point.as_slice());
            let place = place.and_then(|place| place.strip_prefix(b"/"));
            let Some(place) = place.filter(|_| child.device == emulated) else {
                return Found::Other;
            };
            files.push(place.to_vec());
            tree.push(child.id);
        }
    }
    let name = mount.point.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    if files.is_empty() || name.is_empty() {
        return Found::Other;
    }
    Found::Covered(Covered {
        mount_id: mount.id,
        name: name.to_vec(),
        carrier,
        read_only: mount.read_only,
        shared: mount.shared,
        files,
    })
}

/// The ids and places of the virtualised files that are directly on the mount `target`, if it is a
/// proc, a sysfs or a bind mount of a part of one. Where several are on top of each other, it is the
/// lowest one; the others belong to who put them there.
pub fn files_on(mounts: &[Entry], target: u64, emulated: u64) -> Vec<(u64, Vec<u8>)> {
    let carrier = mounts.iter().find(|mount| mount.id == target);
    let Some(carrier) = carrier.filter(|m| Carrier::of_type(&m.file_system).is_some()) else {
        return Vec::new();
    };
    let on_it = mounts.iter().filter(|m| m.parent == target && m.device == emulated);
    let place = |point: &[u8]| {
        let place = point.strip_prefix(carrier.point.as_slice())?;
        // The root of a mount namespace is a lone slash.
        Some(place.strip_prefix(b"/").unwrap_or(place).to_vec())
    };
    on_it.filter_map(|mount| Some((mount.id, place(&mount.point)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::mountinfo;
    use super::*;

    const FUSE: &str = "0:99";

    /// Lines of (id, parent, device, mount point, file system type).
    fn mounts(lines: &[(u64, u64, &str, &str, &str)]) -> Vec<Entry> {
        let text: String = lines
            .iter()
            .map(|(id, parent, device, point, kind)| {
                format!("{id} {parent} {device} / {point} rw - {kind} x rw\n")
            })
            .collect();
        mountinfo::parse(text.as_bytes())
    }

    fn find_in(lines: &[(u64, u64, &str, &str, &str)], target: u64) -> Found {
        find(&mounts(lines), target, rustix::fs::makedev(0, 99))
    }

    const ROOT: (u64, u64, &str, &str, &str) = (1, 0, "8:1", "/", "overlay");
    const PROC: (u64, u64, &str, &str, &str) = (20, 1, "0:50", "/m", "proc");

    #[test]
    fn a_proc_with_nothing_but_virtualised_files_is_ours() {
        // Listed before its parent, and with one file on top of another.
        let lines = [
            (5, 20, FUSE, "/m/uptime", "fuse"),
            ROOT,
            PROC,
            (21, 20, FUSE, "/m/sys/kernel/panic", "fuse"),
            (22, 5, FUSE, "/m/uptime", "fuse"),
        ];
        let Found::Covered(covered) = find_in(&lines, 20) else {
            panic!("not found");
        };
        let files: Vec<_> = covered.files.iter().map(|f| String::from_utf8_lossy(f)).collect();
        assert_eq!(files, ["uptime", "sys/kernel/panic", "uptime"]);
        assert_eq!((covered.name.as_slice(), covered.carrier), (&b"m"[..], Carrier::Proc));
    }

    #[test]
    fn other_mounts_are_the_kernels() {
        let tmpfs = (21, 20, "0:60", "/m/tty", "tmpfs");
        let file = (22, 20, FUSE, "/m/uptime", "fuse");
        assert_eq!(find_in(&[ROOT, PROC], 20), Found::Other, "no children");
        assert_eq!(find_in(&[ROOT, PROC, file, tmpfs], 20), Found::Other, "one of another kind");
        assert_eq!(find_in(&[ROOT, PROC, file], 1), Found::Other, "not proc");
        assert_eq!(find_in(&[ROOT, PROC, file], 77), Found::Other, "not there");
        let at_root = (20, 1, "0:50", "/", "proc");
        assert_eq!(find_in(&[ROOT, at_root, file], 20), Found::Other, "the caller's root");
    }

    #[test]
    fn the_files_on_a_mount_are_those_of_its_first_layer() {
        let part = (30, 20, "0:50", "/m/sys", "proc");
        let file = (31, 30, FUSE, "/m/sys/kernel/panic", "fuse");
        let again = (32, 31, FUSE, "/m/sys/kernel/panic", "fuse");
        let below = (33, 20, FUSE, "/m/sys/kernel/panic", "fuse");
        let mounts = mounts(&[ROOT, PROC, part, file, again, below]);
        let device = rustix::fs::makedev(0, 99);
        assert_eq!(files_on(&mounts, 30, device), [(31, b"kernel/panic".to_vec())]);
        assert_eq!(files_on(&mounts, 20, device), [(33, b"sys/kernel/panic".to_vec())]);
        for other in [1, 31, 77] {
            assert_eq!(files_on(&mounts, other, device), []);
        }
    }

    #[test]
    fn a_single_file_is_no_mount_unless_it_was_bound_elsewhere() {
        let file = (22, 20, FUSE, "/m/uptime", "fuse");
        let bound = (23, 1, FUSE, "/tmp/uptime", "fuse");
        let again = (24, 22, FUSE, "/m/uptime", "fuse");
        let lines = [ROOT, PROC, file, bound, again];
        assert_eq!(find_in(&lines, 22), Found::SingleFile(Carrier::Proc));
        assert_eq!(find_in(&lines, 23), Found::Other);
        assert_eq!(find_in(&lines, 24), Found::Other);
    }
}
