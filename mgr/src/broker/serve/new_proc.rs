//! A procfs of the caller's pid namespace.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::caller::Caller;
use super::super::worker::Worker;
use super::mount::Wanted;
use super::{Attempt, Stop, options};

/// Makes it, attached nowhere and covered by nothing yet.
pub fn make(
    worker: &Worker,
    caller: &Caller<'_>,
    pidns: &OwnedFd,
    wanted: &Wanted,
) -> Attempt<OwnedFd> {
    let translate = |gid| caller.host_gid(gid).ok().flatten();
    let mut settings = options::superblock_flags(wanted.flags);
    settings.extend(options::proc(&wanted.data, translate).map_err(Stop::Refuse)?);
    settings.extend(options::source(wanted.source.clone()).map_err(Stop::Refuse)?);
    let attributes = options::attributes(wanted.flags);
    let mount = worker.host.new_proc(pidns, &settings, attributes);
    mount.map_err(|error| match Errno::from_io_error(&error) {
        // An option that procfs has but not with this value.
        Some(Errno::INVAL) => Stop::Refuse(Errno::INVAL),
        _ => Stop::Broken("making a procfs", error),
    })
}
