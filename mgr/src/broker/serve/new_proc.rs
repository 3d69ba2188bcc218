//! A procfs of the caller's pid namespace.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::caller::{Caller, Namespace};
use super::super::worker::Worker;
use super::emulated::{self, Cover, Tree};
use super::mount::Wanted;
use super::{Attempt, Origin, Stop, options, or_continue};

/// Directory of proc in `emulated_dir`.
const PROC: &str = "proc";
/// Below it, what exists depends on the network namespace of who looks.
const OF_NET_NAMESPACE: &str = "sys/net/";

/// Makes it, and finds what goes on it.
pub fn make(
    worker: &Worker,
    origin: &Origin,
    caller: &Caller<'_>,
    pidns: &OwnedFd,
    wanted: &Wanted,
) -> Attempt<Tree> {
    let translate = |gid| caller.host_gid(gid).ok().flatten();
    let mut settings = options::superblock_flags(wanted.flags);
    settings.extend(options::proc(&wanted.data, translate).map_err(Stop::Refuse)?);
    settings.extend(options::source(wanted.source.clone()).map_err(Stop::Refuse)?);
    let attributes = options::attributes(wanted.flags);
    let mount = worker.host.new_proc(pidns, &settings, attributes);
    let mount = mount.map_err(|error| match Errno::from_io_error(&error) {
        // An option that procfs has but not with this value.
        Some(Errno::INVAL) => Stop::Refuse(Errno::INVAL),
        _ => Stop::Broken("making a procfs", error),
    })?;
    let files = emulated::files(&origin.container, PROC, wanted.is_read_only())
        .map_err(|error| Stop::Broken("finding the virtualised files of /proc", error))?;
    let in_net = files
        .iter()
        .any(|file| file.place.starts_with(OF_NET_NAMESPACE));
    let net = match in_net {
        true => Some(or_continue(caller.namespace(Namespace::Net))?),
        false => None,
    };
    Ok(Tree {
        mount,
        cover: Cover { files, net },
    })
}
