//! File systems that the kernel makes up: proc, sysfs, tmpfs, mqueue; and the virtualised files that
//! go over single files of the first two.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, UnmountFlags, mount, unmount};
use sysbox_ipc::paths::{ALL, flat};
use sysbox_kernel::features::Feature;
use sysbox_kernel::mount::{attach, clone_tree, new_mount, new_proc_of};
use sysbox_kernel::ns::{LinkNameSpaceType, move_into_link_name_space};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process, exit_now, wait_pidfd};

use super::bind::apply_attributes;
use super::destination::find;
use crate::plan::{Ids, MountPlan};
use crate::run::channel::Channel;

/// Below this place what a procfs has depends on the network namespace of who looks.
const OF_NET_NAMESPACE: &str = "proc/sys/net/";

/// A procfs of the container's pid namespace.
pub fn proc(pidns: BorrowedFd<'_>, mount: &MountPlan) -> Result<OwnedFd> {
    let by_option = Feature::ProcPidns.may_be_used();
    let source = mount.shown_source.as_str();
    let made = match by_option.then(|| new_proc_of(pidns, source, MountAttrFlags::empty())) {
        Some(Ok(made)) => made,
        // Before 6.18 a procfs belongs to the pid namespace of the process that mounts it.
        Some(Err(_)) | None => {
            proc_made_inside(pidns, source).context("mount proc from inside the pid namespace")?
        }
    };
    apply_attributes(&made, mount)?;
    Ok(made)
}

/// Lets a child that was born in the pid namespace mount proc, and takes the mount from it.
fn proc_made_inside(pidns: BorrowedFd<'_>, source: &str) -> Result<OwnedFd> {
    let (ours, theirs) = Channel::pair()?;
    let Fork::Parent { pidfd, .. } = clone_process(CloneFlags::NONE)? else {
        // Entering a pid namespace counts for children only, so there is one more.
        let born_inside = move_into_link_name_space(pidns, Some(LinkNameSpaceType::ProcessID))
            .and_then(|()| clone_process(CloneFlags::NONE).map_err(|_| rustix::io::Errno::AGAIN));
        match born_inside {
            Ok(Fork::Child) => {
                if let Ok(made) = new_kernel_mount("proc", source) {
                    let _ = theirs.send_fd("proc", made.as_fd());
                }
                exit_now(0)
            }
            Ok(Fork::Parent { pidfd, .. }) => exit_now(wait_pidfd(&pidfd).unwrap_or(1)),
            Err(_) => exit_now(1),
        }
    };
    drop(theirs);
    let received = ours.receive_fd("proc");
    let _ = wait_pidfd(&pidfd);
    received
}

/// A sysfs that shows the container's network namespace.
pub fn sysfs(netns: BorrowedFd<'_>, mount: &MountPlan) -> Result<OwnedFd> {
    let made = in_network_namespace(netns, || new_kernel_mount("sysfs", &mount.shown_source))?;
    let made = made.context("mount sysfs")?;
    apply_attributes(&made, mount)?;
    Ok(made)
}

/// Does something in a network namespace.
fn in_network_namespace<T>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T> {
    in_namespace(netns, ("net", LinkNameSpaceType::Network), work)
}

/// Does something in a namespace, given with its name below /proc/self/ns.
fn in_namespace<T>(
    namespace: BorrowedFd<'_>,
    (name, kind): (&str, LinkNameSpaceType),
    work: impl FnOnce() -> T,
) -> Result<T> {
    let path = format!("/proc/self/ns/{name}");
    let own = std::fs::File::open(&path).with_context(|| format!("open {path}"))?;
    move_into_link_name_space(namespace, Some(kind))
        .with_context(|| format!("enter the {name} namespace"))?;
    let done = work();
    move_into_link_name_space(own.as_fd(), Some(kind))
        .with_context(|| format!("leave the {name} namespace"))?;
    Ok(done)
}

/// The message queues of the container's ipc namespace, which may be another container's.
pub fn mqueue(ipcns: BorrowedFd<'_>, mount: &MountPlan) -> Result<OwnedFd> {
    let ipc = ("ipc", LinkNameSpaceType::InterProcessCommunication);
    let source = [("source", mount.shown_source.as_str())];
    let made = in_namespace(ipcns, ipc, || new_mount("mqueue", &source, MountAttrFlags::empty()))?;
    let made = made.context("make a mqueue")?;
    apply_attributes(&made, mount)?;
    Ok(made)
}

/// A proc or sysfs. Where this runtime is in a system container itself, the broker of that one serves
/// them by mount(2) only; what it mounts carries the virtualised files of the outer container.
fn new_kernel_mount(fs_type: &str, source: &str) -> Result<OwnedFd> {
    match new_mount(fs_type, &[("source", source)], MountAttrFlags::empty()) {
        Err(e) if e.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            let place = super::scratch_directory(fs_type)?;
            mount(source, &place, fs_type, MountFlags::empty(), None)
                .with_context(|| format!("mount {fs_type} by the outer container's broker"))?;
            let clone = clone_tree(CWD, &place, true).context("clone it")?;
            unmount(&place, UnmountFlags::DETACH).context("unmount it from its first place")?;
            Ok(clone)
        }
        made => Ok(made?),
    }
}

/// A tmpfs that belongs to container root. Made by the host, so that its size cannot be changed
/// from inside.
pub fn tmpfs(ids: &Ids, mount: &MountPlan) -> Result<OwnedFd> {
    let mut options: Vec<(String, String)> = vec![
        ("source".into(), mount.shown_source.clone()),
        ("uid".into(), ids.host_uid(0).unwrap_or_default().to_string()),
        ("gid".into(), ids.host_gid(0).unwrap_or_default().to_string()),
    ];
    for (key, value) in mount.data() {
        let id = || value.parse().with_context(|| format!("tmpfs option {key}={value}"));
        let value = match key {
            "uid" => ids.host_uid(id()?).context("tmpfs option uid is not mapped")?.to_string(),
            "gid" => ids.host_gid(id()?).context("tmpfs option gid is not mapped")?.to_string(),
            _ => value.to_owned(),
        };
        options.push((key.to_owned(), value));
    }
    let options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let made = new_mount("tmpfs", &options, MountAttrFlags::empty())
        .with_context(|| format!("make a tmpfs with the options {:?}", mount.options.data))?;
    apply_attributes(&made, mount)?;
    Ok(made)
}

/// Any other type, as the engine asked for it.
pub fn other(fs_type: &str, mount: &MountPlan) -> Result<OwnedFd> {
    let mut options = vec![("source", mount.shown_source.as_str())];
    options.extend(mount.data());
    let made = new_mount(fs_type, &options, MountAttrFlags::empty())
        .with_context(|| format!("mount the file system type {fs_type}"))?;
    apply_attributes(&made, mount)?;
    Ok(made)
}

/// Mounts each virtualised file over the file of the kernel with the same path; those that this
/// kernel does not have are left out.
pub fn attach_emulated(
    root: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    (dir, files): (&Path, &[String]),
) -> Result<()> {
    // One listing of the directory tells the kernel of all its files, which are asked for one by one
    // otherwise.
    let dir = &dir.join(ALL);
    if let Ok(entries) = std::fs::read_dir(dir) {
        entries.for_each(drop);
    }
    let (of_net, others): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.starts_with(OF_NET_NAMESPACE));
    others.into_iter().try_for_each(|file| attach_one(root, dir, file))?;
    if of_net.is_empty() {
        return Ok(());
    }
    in_network_namespace(netns, || {
        of_net.into_iter().try_for_each(|file| attach_one(root, dir, file))
    })?
}

fn attach_one(root: BorrowedFd<'_>, dir: &Path, file: &str) -> Result<()> {
    let Some(target) = find(root, &Path::new("/").join(file))? else { return Ok(()) };
    let source = dir.join(flat(file));
    let clone = clone_tree(CWD, &source, false).with_context(|| {
        format!(
            "open the virtualised file {}: is sysbox-fs running, in the same mount namespace as the container engine?",
            source.display()
        )
    })?;
    attach(&clone, target).with_context(|| format!("mount the virtualised /{file}"))
}
