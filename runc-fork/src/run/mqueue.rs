//! The message queues of an ipc namespace that belongs to another container.
//!
//! Init mounts its own mqueue; that of a namespace which another user namespace owns the kernel
//! refuses it. So the host side mounts it, from inside the ipc namespace.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use sysbox_kernel::mount::{attach, new_mount};
use sysbox_kernel::ns::{LinkNameSpaceType, move_into_link_name_space};

use super::tree;
use crate::plan::{Plan, Source};

const IPC: LinkNameSpaceType = LinkNameSpaceType::InterProcessCommunication;

/// Mounts what init leaves out (see [`Plan::mounted_by_init`]). `root` is the finished tree.
pub fn mount_joined(plan: &Plan, ipc: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<()> {
    let left_out =
        |m: &&crate::plan::MountPlan| m.source == Source::Mqueue && !plan.mounted_by_init(m);
    for mount in plan.mounts.iter().filter(left_out) {
        let what = || format!("mount {}", mount.destination.display());
        let made = new_in(ipc).with_context(what)?;
        tree::apply_attributes(&made, mount).with_context(what)?;
        let target = tree::make(root, &mount.destination, tree::Kind::Directory)?;
        attach(&made, target).with_context(what)?;
    }
    Ok(())
}

fn new_in(ipc: BorrowedFd<'_>) -> Result<OwnedFd> {
    let own = File::open("/proc/self/ns/ipc").context("open /proc/self/ns/ipc")?;
    move_into_link_name_space(ipc, Some(IPC)).context("enter the ipc namespace")?;
    let made = new_mount("mqueue", &[], MountAttrFlags::empty());
    move_into_link_name_space(own.as_fd(), Some(IPC)).context("leave the ipc namespace")?;
    made.context("make a mqueue")
}
