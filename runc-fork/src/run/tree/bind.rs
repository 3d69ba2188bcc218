//! Bind mounts and volumes: clones of the host's trees, ID-mapped so that the host root's files
//! are container root's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use sysbox_kernel::mount::{Attributes, Propagation, clone_tree, idmap, set_attributes};

use super::Kind;
use crate::plan::{MountPlan, Plan};

/// A detached clone of `source`, ID-mapped where that is possible, with the mount's attributes.
pub fn clone(
    plan: &Plan,
    userns: BorrowedFd<'_>,
    mount: &MountPlan,
    source: &Path,
    warnings: &mut Vec<String>,
) -> Result<(OwnedFd, Kind)> {
    let opened = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open the source {}", source.display()))?;
    let stat = fstat(&opened)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let recursive = mount.options.recursive && directory;
    let clone = clone_tree(&opened, Path::new(""), recursive)
        .with_context(|| format!("clone the source {}", source.display()))?;
    // What already belongs to the container's ids (a volume of an earlier life with another
    // runtime, a socket of the container itself) would be shifted out of sight.
    if !mount.skip_idmap
        && !plan.ids.owns_uid(stat.st_uid)
        && let Err(e) = map(&clone, userns, recursive)
    {
        warnings.push(format!(
            "{}: the source {} cannot be ID-mapped ({e}); its files belong to nobody inside",
            mount.destination.display(),
            source.display()
        ));
    }
    apply_attributes(&clone, mount)?;
    Ok((clone, if directory { Kind::Directory } else { Kind::File }))
}

/// ID-maps the tree; if something below cannot be mapped, at least its top.
fn map(clone: &OwnedFd, userns: BorrowedFd<'_>, recursive: bool) -> std::io::Result<()> {
    match idmap(clone, userns, recursive) {
        Err(_) if recursive => idmap(clone, userns, false),
        other => other,
    }
}

/// Sets `ro`, `nosuid`... on a detached mount.
pub fn apply_attributes(mount_fd: impl AsFd, mount: &MountPlan) -> Result<()> {
    let all = [(mount.options.attributes, false), (mount.options.recursive_attributes, true)];
    for ((set, clear), recursive) in all {
        if (set, clear) != (0, 0) {
            let attributes = Attributes { set, clear, propagation: None };
            set_attributes(mount_fd.as_fd(), attributes, recursive)
                .context("set its mount options")?;
        }
    }
    Ok(())
}

/// Gives an attached mount the propagation asked for; private without a wish.
pub fn propagation(mount_fd: impl AsFd, mount: &MountPlan) -> Result<()> {
    let (kind, recursive) = match mount.options.propagation {
        // Nothing that the container mounts may show up on the host: shared becomes slave.
        Some((Propagation::Shared | Propagation::Slave, recursive)) => {
            (Propagation::Slave, recursive)
        }
        Some(other) => other,
        None => (Propagation::Private, true),
    };
    let attributes = Attributes { propagation: Some(kind), ..Attributes::default() };
    set_attributes(mount_fd, attributes, recursive).context("set its propagation")
}
