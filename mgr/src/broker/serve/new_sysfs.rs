//! A sysfs of the caller's network namespace.

use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsmount, fsopen};

use super::super::host::set_options;
use super::super::worker::Worker;
use super::mount::Wanted;
use super::{Attempt, Stop, options};

/// Makes it, attached nowhere and covered by nothing yet.
pub fn make(worker: &mut Worker, netns: &OwnedFd, wanted: &Wanted) -> Attempt<OwnedFd> {
    options::none(&wanted.data).map_err(Stop::Refuse)?;
    // No flags for the file system: all mounts of a network namespace share one, and the first
    // read-only mount would make the others so.
    let settings = options::source(wanted.source.clone()).map_err(Stop::Refuse)?;
    let attributes = options::attributes(wanted.flags);
    // Whose interfaces /sys/class/net shows is fixed by who opens it.
    let open = |_: &mut Worker| -> io::Result<OwnedFd> {
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_options(&context, &settings)?;
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Ok(fsmount(&context, flags, attributes)?)
    };
    let mount = worker.in_net_namespace(netns, open).and_then(|made| made);
    mount.map_err(|error| Stop::Broken("making a sysfs", error))
}
