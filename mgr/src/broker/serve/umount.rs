//! Unmounting a proc or sysfs that carries virtualised files.
//!
//! To the caller it is one mount; to the kernel it has children, hence `EBUSY`. Here the files are
//! taken off first, then the mount itself; each step asks the kernel whether it is busy, and when
//! one is, the files go back on. Whatever is not such a mount goes on to the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::fchdir;
use sysbox_kernel::notify::Answer;

use super::super::Container;
use super::super::caller::{Caller, Namespace};
use super::super::decide::{self, Facts};
use super::super::mountinfo::{self, Entry};
use super::super::resolve;
use super::super::worker::Worker;
use super::emulated::{self, Cover};
use super::{Attempt, Origin, Served, Stop, or_continue};

const UMOUNT_NOFOLLOW: u32 = 8;

/// Serves an umount2(2) without `MNT_DETACH`.
pub fn serve(
    worker: &mut Worker,
    origin: &Origin,
    caller: &Caller<'_>,
    target_at: u64,
    flags: u32,
) -> Attempt<Served> {
    let path = or_continue(caller.string(target_at))?.ok_or(Stop::Continue)?;
    let follow = flags & UMOUNT_NOFOLLOW == 0;
    let target = or_continue(resolve::object(worker, caller, &path, follow))?;
    let there = Place::of(&target)?;
    if !there.is_root {
        return Err(Stop::Continue);
    }
    let emulated = emulated_device(&origin.container)?;
    let mounts = mountinfo::parse(&or_continue(caller.mountinfo())?);
    let mount_namespace = or_continue(caller.namespace(Namespace::Mount))?;
    let facts = Facts {
        credentials: caller.credentials(),
        mount: or_continue(caller.lineage(&mount_namespace))?,
        shown: None,
    };
    if !decide::may_mount(&facts) || !caller.still_waits() {
        return Err(Stop::Continue);
    }
    let covered = match find(&mounts, there.mount_id, emulated) {
        Found::Covered(covered) => covered,
        Found::SingleFile => return Err(Stop::Refuse(Errno::INVAL)),
        Found::Other => return Err(Stop::Continue),
    };
    // Out of the mount, into the directory that it is on: a reference would keep it busy.
    let up = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = or_continue(openat(&target, "..", up, Mode::empty()))?;
    drop(target);
    let entered = worker.in_mount_namespace(&mount_namespace, |_| {
        fchdir(&above).map_err(|_| Stop::Continue)?;
        covered.take_off(caller)
    });
    let busy =
        match entered.map_err(|error| Stop::Broken("entering the mount namespace", error))?? {
            Taken::All => return Ok(Answer::Success.into()),
            Taken::Busy(busy) => busy,
        };
    let restored = covered.put_back(worker, origin, &busy, &mount_namespace);
    restored.map_err(|error| Stop::Broken("putting virtualised files back", error))?;
    Err(Stop::Refuse(busy.errno))
}

/// Where a descriptor is.
struct Place {
    mount_id: u64,
    is_root: bool,
}

impl Place {
    /// Asks no file system anything: it may be one that the container serves.
    fn of(object: impl AsFd) -> Attempt<Self> {
        Self::at(object, "", AtFlags::EMPTY_PATH)
    }

    fn at(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Attempt<Self> {
        let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let found = or_continue(statx(dir, name, flags, StatxFlags::MNT_ID))?;
        Ok(Self {
            mount_id: found.stx_mnt_id,
            is_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }
}

/// The device number of the file system that holds the virtualised files.
fn emulated_device(container: &Container) -> Attempt<u64> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = or_continue(statx(
        CWD,
        &container.emulated_dir,
        flags,
        StatxFlags::empty(),
    ))?;
    Ok(rustix::fs::makedev(
        found.stx_dev_major,
        found.stx_dev_minor,
    ))
}

/// A proc or sysfs that has nothing on it but virtualised files.
#[derive(Debug, PartialEq, Eq)]
struct Covered {
    mount_id: u64,
    /// Last part of the path of its mount point.
    name: Vec<u8>,
    /// `proc` or `sys`: where its files are in `emulated_dir`.
    kind: &'static str,
    read_only: bool,
    /// Places of its files below its root; as often as there are files on top of each other.
    files: Vec<Vec<u8>>,
}

/// What an umount aims at.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Covered(Covered),
    /// One virtualised file alone, which is no mount to the caller.
    SingleFile,
    /// Not ours.
    Other,
}

fn find(mounts: &[Entry], target: u64, emulated: u64) -> Found {
    let by_id = |id| mounts.iter().find(|mount| mount.id == id);
    let kind = |mount: &Entry| match mount.file_system.as_slice() {
        b"proc" => Some("proc"),
        b"sysfs" => Some("sys"),
        _ => None,
    };
    let Some(mount) = by_id(target) else {
        return Found::Other;
    };
    if mount.device == emulated {
        let below = by_id(mount.parent).and_then(kind);
        return if below.is_some() {
            Found::SingleFile
        } else {
            Found::Other
        };
    }
    let Some(kind) = kind(mount) else {
        return Found::Other;
    };
    let mut files = Vec::new();
    // Those below it, in whatever order they are listed.
    let mut tree = vec![mount.id];
    let mut rest: Vec<&Entry> = mounts.iter().filter(|other| other.id != mount.id).collect();
    loop {
        let (below, others) = rest
            .into_iter()
            .partition(|other| tree.contains(&other.parent));
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
    let name = mount
        .point
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    if files.is_empty() || name.is_empty() {
        return Found::Other;
    }
    Found::Covered(Covered {
        mount_id: mount.id,
        name: name.to_vec(),
        kind,
        read_only: mount.read_only,
        files,
    })
}

/// What came of taking a mount off.
enum Taken {
    All,
    Busy(Busy),
}

/// A mount that is in use.
struct Busy {
    /// What the kernel said.
    errno: Errno,
    /// How many of the files are off already.
    files_off: usize,
    /// Its root.
    root: OwnedFd,
}

impl Covered {
    /// Takes the files off, then the mount. The thread is in the caller's mount namespace, in the
    /// directory that the mount is on.
    fn take_off(&self, caller: &Caller<'_>) -> Attempt<Taken> {
        let name = self.name.as_slice();
        // By now something else may be there.
        if Place::at(CWD, name, AtFlags::empty())?.mount_id != self.mount_id {
            return Err(Stop::Continue);
        }
        if !caller.still_waits() {
            return Err(Stop::Continue);
        }
        let mut path = name.to_vec();
        path.push(b'/');
        let mut files_off = 0;
        let errno = loop {
            let Some(file) = self.files.get(files_off) else {
                match unmount(name, UnmountFlags::NOFOLLOW) {
                    Ok(()) => return Ok(Taken::All),
                    Err(errno) => break errno,
                }
            };
            path.truncate(name.len() + 1);
            path.extend_from_slice(file);
            match unmount(path.as_slice(), UnmountFlags::NOFOLLOW) {
                Ok(()) => files_off += 1,
                // Locked by the kernel; so is the mount below, or it has to stay in one piece.
                Err(Errno::INVAL) if files_off == 0 => return Err(Stop::Continue),
                Err(errno) => break errno,
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, name, flags, Mode::empty());
        match root.map_err(io::Error::from) {
            Ok(root) if Place::of(&root)?.mount_id == self.mount_id => Ok(Taken::Busy(Busy {
                errno,
                files_off,
                root,
            })),
            // Moved away in the meantime: not to be found again.
            _ => Err(Stop::Refuse(errno)),
        }
    }

    /// Puts the files back that are off.
    fn put_back(
        &self,
        worker: &mut Worker,
        origin: &Origin,
        busy: &Busy,
        mount_namespace: &OwnedFd,
    ) -> io::Result<()> {
        let container = &origin.container;
        let off = &self.files[..busy.files_off];
        let mut cover = Cover::default();
        for place in emulated::places(container, self.kind) {
            if off.iter().any(|file| file == place.as_bytes()) {
                let file = emulated::file(container, self.kind, place, self.read_only)?;
                cover.files.push(file);
            }
        }
        let root = busy.root.as_fd();
        worker.in_mount_namespace(mount_namespace, |worker| cover.attach(worker, root))?
    }
}

#[cfg(test)]
mod tests {
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
        let files: Vec<_> = covered
            .files
            .iter()
            .map(|f| String::from_utf8_lossy(f))
            .collect();
        assert_eq!(files, ["uptime", "sys/kernel/panic", "uptime"]);
        assert_eq!((covered.name.as_slice(), covered.kind), (&b"m"[..], "proc"));
    }

    #[test]
    fn other_mounts_are_the_kernels() {
        let tmpfs = (21, 20, "0:60", "/m/tty", "tmpfs");
        let file = (22, 20, FUSE, "/m/uptime", "fuse");
        assert_eq!(find_in(&[ROOT, PROC], 20), Found::Other, "no children");
        assert_eq!(
            find_in(&[ROOT, PROC, file, tmpfs], 20),
            Found::Other,
            "one of another kind"
        );
        assert_eq!(find_in(&[ROOT, PROC, file], 1), Found::Other, "not proc");
        assert_eq!(find_in(&[ROOT, PROC, file], 77), Found::Other, "not there");
        let at_root = (20, 1, "0:50", "/", "proc");
        assert_eq!(
            find_in(&[ROOT, at_root, file], 20),
            Found::Other,
            "the caller's root"
        );
    }

    #[test]
    fn a_single_file_is_no_mount_unless_it_was_bound_elsewhere() {
        let file = (22, 20, FUSE, "/m/uptime", "fuse");
        let bound = (23, 1, FUSE, "/tmp/uptime", "fuse");
        let again = (24, 22, FUSE, "/m/uptime", "fuse");
        let lines = [ROOT, PROC, file, bound, again];
        assert_eq!(find_in(&lines, 22), Found::SingleFile);
        assert_eq!(find_in(&lines, 23), Found::Other);
        assert_eq!(find_in(&lines, 24), Found::Other);
    }
}
