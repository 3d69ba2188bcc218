//! Bind mounts with ID mappings of their own (`mounts[].uidMappings`, `gidMappings`).
//!
//! The kernel takes mappings from user namespaces only, so each such mount needs one.

use std::fs::canonicalize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use sysbox_kernel::mount::{attach, clone_remapped, clone_tree, idmap};
use sysbox_kernel::ns::user_namespace;

use super::bind::{self, open_source};
use super::mountinfo;
use crate::plan::{Ids, Plan};

/// A user namespace for each mount of the plan that has mappings.
pub fn namespaces(plan: &Plan) -> Result<Vec<Option<OwnedFd>>> {
    let one = |mount: &crate::plan::MountPlan| -> Result<Option<OwnedFd>> {
        let Some(own) = &mount.own_ids else { return Ok(None) };
        let on_host = if mount.knows_user_namespace { own.clone() } else { own.within(&plan.ids) };
        let Ids { uids, gids } = &on_host;
        let destination = mount.destination.display();
        ensure!(
            !uids.is_empty() && !gids.is_empty(),
            "mounts: {destination}: uidMappings and gidMappings lead to no id that the container has; name ids from 0 on, or give it more by the annotation io.sysbox.id-range-size"
        );
        let namespace = user_namespace(uids, gids).with_context(|| {
            format!(
                "mounts: {destination}: make a user namespace of its uidMappings and gidMappings"
            )
        })?;
        Ok(Some(namespace))
    };
    plan.mounts.iter().map(one).collect()
}

/// A detached clone of `opened`, mapped by `own`: its top, or all of its tree as well (`map_tree`).
/// What is mounted below and is not mapped so is mapped by `others`, if given.
pub fn clone(
    source: &Path,
    opened: &OwnedFd,
    own: BorrowedFd<'_>,
    (tree, map_tree): (bool, bool),
    others: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    if map_tree || !tree {
        return mapped(opened, own, tree).context("map it");
    }
    let source = canonicalize(source).context("find the source")?;
    let below = mountinfo::outermost_below(&source)?;
    if below.is_empty() {
        return mapped(opened, own, false).context("map it");
    }
    // The kernel maps the mounts of a tree alike, and only before they are somewhere: so the tree is
    // put together anew, on a place that only the builder sees.
    let path = super::scratch_directory("mapped")?;
    let place = openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let top = mapped(opened, own, false).context("map it")?;
    attach(&top, &place).context("attach its top")?;
    for relative in below {
        let path = source.join(&relative);
        let what = || format!("what is mounted on {}", path.display());
        let clone = clone_tree(open_source(&path)?, Path::new(""), true).with_context(what)?;
        if let Some(others) = others {
            // What can't be mapped, or is already, stays as it is: nobody has asked for it by name.
            let _ = bind::map(&clone, others, true, false);
        }
        let target = super::find(top.as_fd(), &Path::new("/").join(&relative))?;
        attach(&clone, target.with_context(what)?).with_context(what)?;
    }
    let whole = clone_tree(&top, Path::new(""), true).context("clone the tree")?;
    unmount(&path, UnmountFlags::DETACH).context("unmount it from its first place")?;
    Ok(whole)
}

fn mapped(opened: &OwnedFd, own: BorrowedFd<'_>, tree: bool) -> std::io::Result<OwnedFd> {
    let clone = clone_tree(opened, Path::new(""), tree)?;
    match idmap(&clone, own, tree) {
        Ok(()) => Ok(clone),
        // It is mapped already, like the container's own tree.
        Err(e) if e.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            clone_remapped(opened, own, tree).map_err(|_| e)
        }
        Err(e) => Err(e),
    }
}
