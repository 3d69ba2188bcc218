//! What is to be known of the mounts around one mount: itself, the one that it is on, all that are on it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sysbox_kernel::mount_table::{self, MountId, Mounted};

use super::super::caller::Caller;
use super::super::mountinfo::{self, Entry};
use super::super::worker::Worker;
use super::emulated::Carrier;
use super::{Attempt, Stop, or_continue};

/// More mounts on one than virtualised files would ever be, on top of each other too. Who has mounted so
/// many gets the kernel's answer; their places could fill the memory of the manager.
const MOST: usize = 1000;

/// Looks around the mount that `target` is on, in the caller's mount namespace. Of a mount that
/// neither is a proc or sysfs nor holds virtualised files (the device `emulated`) only itself is told.
///
/// Mounts come in no order. Their places are below the root of the namespace or of the caller: only
/// what one has more than another means something.
pub fn around(
    worker: &mut Worker,
    caller: &Caller<'_>,
    mount_namespace: &OwnedFd,
    target: &OwnedFd,
    emulated: u64,
) -> Attempt<Vec<Entry>> {
    if !worker.host.features.single_mounts {
        return Ok(mountinfo::parse(&or_continue(caller.mountinfo())?));
    }
    // A file system that talks to nobody outside, or a mount that is gone: the kernel knows.
    let target = or_continue(mount_table::mount_of(target))?;
    let entered = worker.in_mount_namespace(mount_namespace, |_| ask(target, emulated));
    or_continue(entered.map_err(|error| Stop::Broken("entering the mount namespace", error))?)
}

fn ask(target: MountId, emulated: u64) -> io::Result<Vec<Entry>> {
    let mount = mount_table::describe(target)?;
    let parent = mount.parent;
    let is_carrier = !file_system(mount.magic).is_empty();
    let is_emulated = mount.device == emulated;
    let mut entries = vec![entry(mount)];
    if is_carrier {
        let on_it = mount_table::all_on(target)?;
        if on_it.len() > MOST {
            return Err(Errno::FBIG.into());
        }
        for id in on_it {
            entries.push(entry(mount_table::describe(id)?));
        }
    }
    if is_emulated {
        entries.push(entry(mount_table::describe(parent)?));
    }
    Ok(entries)
}

fn entry(mount: Mounted) -> Entry {
    Entry {
        id: mount.number,
        parent: mount.parent_number,
        device: mount.device,
        point: mount.point,
        read_only: mount.read_only,
        shared: mount.shared,
        file_system: file_system(mount.magic).to_vec(),
    }
}

/// The name of a file system type that carries virtualised files; nothing for others.
fn file_system(magic: u64) -> &'static [u8] {
    [Carrier::Proc, Carrier::Sysfs]
        .into_iter()
        .find(|carrier| carrier.magic() == magic)
        .map_or(b"", Carrier::file_system)
}
