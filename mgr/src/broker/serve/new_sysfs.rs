//! A sysfs of the caller's network namespace.

use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsmount, fsopen};

use super::super::host::set_options;
use super::super::worker::Worker;
use super::emulated::{self, Cover, Tree};
use super::mount::Wanted;
use super::{Attempt, Origin, Stop, options};

/// Directory of sysfs in `emulated_dir`.
const SYS: &str = "sys";

/// Makes it, and finds what goes on it.
pub fn make(
    worker: &mut Worker,
    origin: &Origin,
    netns: &OwnedFd,
    wanted: &Wanted,
) -> Attempt<Tree> {
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
    let mount = mount.map_err(|error| Stop::Broken("making a sysfs", error))?;
    let files = emulated::files(&origin.container, SYS, wanted.is_read_only())
        .map_err(|error| Stop::Broken("finding the virtualised files of /sys", error))?;
    Ok(Tree {
        mount,
        cover: Cover { files, net: None },
    })
}
