//! Unmounting a proc or sysfs that carries virtualised files.
//!
//! To the caller it is one mount; to the kernel it has children, hence `EBUSY`. Here the files are
//! taken off first, then the mount itself; each step asks the kernel whether it is busy, and when
//! one is, the files go back on. Whatever is not such a mount goes on to the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::fchdir;
use sysbox_kernel::notify::Answer;

use super::super::caller::{Caller, Namespace};
use super::super::decide::{self, Facts};
use super::super::mountinfo;
use super::super::resolve;
use super::super::worker::Worker;
use super::around::around;
use super::attach::Attached;
use super::covered::{Covered, Found, find};
use super::emulated::{Carrier, Cover, OF_NET_NAMESPACE};
use super::lift::{self, Lifted};
use super::place::{Place, emulated_device};
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
    let mount_namespace = or_continue(caller.namespace(Namespace::Mount))?;
    let begun = caller.noted();
    if begun != 0 {
        if is_gone(worker, &mount_namespace, begun)? {
            return Ok(Answer::Success.into());
        }
        or_continue(take_off_cover(worker, &mount_namespace, begun))?;
    }
    let path = or_continue(caller.string(target_at))?.ok_or(Stop::Continue)?;
    let follow = flags & UMOUNT_NOFOLLOW == 0;
    let target = or_continue(resolve::object(worker, caller, &path, follow))?;
    let there = Place::of(&target)?;
    if !there.is_root {
        return Err(Stop::Continue);
    }
    let emulated = emulated_device(&origin.container)?;
    let mounts = around(worker, caller, &mount_namespace, &target, emulated)?;
    let found = find(&mounts, there.mount_id, emulated);
    // What is not ours goes on here: of an umount in a container, nearly all.
    if found == Found::Other || Place::of(or_continue(caller.root())?)?.mount_id == there.mount_id {
        return Err(Stop::Continue);
    }
    let facts = Facts {
        credentials: caller.credentials(),
        mount: or_continue(caller.lineage(&mount_namespace))?,
        shown: None,
        container: origin.userns,
    };
    if !decide::may_mount(&facts) || !caller.still_waits() {
        return Err(Stop::Continue);
    }
    let covered = match found {
        Found::Covered(covered) => covered,
        // Podman with a user namespace (`--userns=auto`) takes off all that it finds below
        // /sys/kernel, so that the kernel lets it mount a sysfs of its own, and gives up at an
        // error. It has its way: nothing is there to the caller's knowledge, and nothing changes.
        Found::SingleFile(Carrier::Sysfs) => return Ok(Answer::Success.into()),
        Found::SingleFile(Carrier::Proc) => return Err(Stop::Refuse(Errno::INVAL)),
        Found::Other => return Err(Stop::Continue),
    };
    // Out of the mount, into the directory that it is on: a reference would keep it busy.
    let up = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = or_continue(openat(&target, "..", up, Mode::empty()))?;
    drop(target);
    let entered = worker.in_mount_namespace(&mount_namespace, |worker| {
        fchdir(&above).map_err(|_| Stop::Continue)?;
        covered.take_off_seen_by(worker, caller)
    });
    let busy =
        match entered.map_err(|error| Stop::Broken("entering the mount namespace", error))?? {
            Taken::All => return Ok(Answer::Success.into()),
            Taken::Busy(busy) => busy,
        };
    let restored = covered.put_back(worker, origin, caller, &busy, &mount_namespace, begun != 0);
    restored.map_err(|error| Stop::Broken("putting virtualised files back", error))?;
    Err(Stop::Refuse(busy.errno))
}

/// Whether a manager that died has taken off the mount that it noted.
fn is_gone(worker: &mut Worker, mount_namespace: &OwnedFd, id: u64) -> Attempt<bool> {
    for file_system in [&b"proc"[..], b"sysfs"] {
        let found = Attached::find(worker, mount_namespace, id, file_system);
        if or_continue(found)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes off the directory that files were being lifted into, if a manager that died has left it
/// on the mount that it noted.
fn take_off_cover(worker: &mut Worker, mount_namespace: &OwnedFd, id: u64) -> io::Result<()> {
    let text = worker.in_mount_namespace(mount_namespace, |worker| worker.own_mountinfo())??;
    let mounts = mountinfo::parse(&text);
    let point = mounts.iter().find(|mount| mount.id == id).map(|mount| mount.point.as_slice());
    let is_cover = |mount: &&mountinfo::Entry| {
        mount.parent == id && Some(&*mount.point) == point && mount.file_system == b"tmpfs"
    };
    if let Some(cover) = mounts.iter().find(is_cover) {
        Attached::of(mount_namespace.try_clone()?, cover).take_back(worker);
    }
    Ok(())
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
    /// Which of the files are off already.
    off: Vec<bool>,
    /// Its root.
    root: OwnedFd,
}

impl Covered {
    /// As [`Covered::take_off`]. Some places of a proc are there only for who is in the right network
    /// namespace.
    fn take_off_seen_by(&self, worker: &mut Worker, caller: &Caller<'_>) -> Attempt<Taken> {
        let of_net = OF_NET_NAMESPACE.as_bytes();
        if !self.files.iter().any(|file| file.starts_with(of_net)) {
            return self.take_off(caller);
        }
        let net = or_continue(caller.namespace(Namespace::Net))?;
        let taken = worker.in_net_namespace(&net, |_| self.take_off(caller));
        taken.map_err(|error| Stop::Broken("entering the network namespace", error))?
    }

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
        caller.note(self.mount_id);
        let mut off = vec![false; self.files.len()];
        let mut busy = None;
        if !self.shared && self.files.len() > 1 {
            let lifted = lift::lift(name, or_continue(open_root(name))?, &self.files, &mut off);
            busy = (lifted == Lifted::Busy).then_some(Errno::BUSY);
        }
        let errno = match busy {
            Some(errno) => errno,
            None => match self.take_off_one_by_one(&mut off)? {
                Ok(()) => return Ok(Taken::All),
                Err(errno) => errno,
            },
        };
        match open_root(name) {
            Ok(root) if Place::of(&root)?.mount_id == self.mount_id => {
                Ok(Taken::Busy(Busy { errno, off, root }))
            }
            // Moved away in the meantime: not to be found again.
            _ => Err(Stop::Refuse(errno)),
        }
    }

    /// The files that are not `off` yet, then the mount itself; the error of the kernel for the first
    /// that is in use.
    fn take_off_one_by_one(&self, off: &mut [bool]) -> Attempt<Result<(), Errno>> {
        let name = self.name.as_slice();
        let mut path = [name, b"/"].concat();
        for at in 0..self.files.len() {
            if off[at] {
                continue;
            }
            path.truncate(name.len() + 1);
            path.extend_from_slice(&self.files[at]);
            match unmount(path.as_slice(), UnmountFlags::NOFOLLOW) {
                Ok(()) => off[at] = true,
                // Locked by the kernel; so is the mount below, or it has to stay in one piece.
                Err(Errno::INVAL) if !off.contains(&true) => return Err(Stop::Continue),
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(unmount(name, UnmountFlags::NOFOLLOW))
    }

    /// Puts the files back that are off; `all`: those, too, that a manager that died took off.
    fn put_back(
        &self,
        worker: &mut Worker,
        origin: &Origin,
        caller: &Caller<'_>,
        busy: &Busy,
        mount_namespace: &OwnedFd,
        all: bool,
    ) -> io::Result<()> {
        let root = busy.root.as_fd();
        let is_off = |place: &str| {
            let files = self.files.iter().zip(&busy.off);
            let here = files.filter(|(file, _)| *file == place.as_bytes()).map(|(_, off)| *off);
            here.reduce(|one, other| one || other).unwrap_or(all)
        };
        let cover = Cover::find(&origin.container, self.carrier, self.read_only, is_off, || {
            caller.namespace(Namespace::Net)
        })?;
        worker.in_mount_namespace(mount_namespace, |worker| cover.attach(worker, root))?
    }
}

fn open_root(name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, name, flags, Mode::empty())
}
