//! The root file system, ID-mapped: a new overlay over the engine's layers, or a clone of
//! whatever else the engine mounted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use sysbox_kernel::mount::{clone_tree, idmap};

use super::mountinfo::Mount;
use super::overlay::Overlay;
use crate::plan::Plan;

/// The mounted root file system.
pub struct Rootfs {
    /// Detached mount.
    pub mount: OwnedFd,
    /// The overlay work directory that was made for it.
    pub work_directory: Option<PathBuf>,
}

/// Mounts the plan's root file system. The caller has the container root's file-system ids.
pub fn mount(plan: &Plan, userns: BorrowedFd<'_>) -> Result<Rootfs> {
    let path = plan.rootfs.as_path();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let rootfs = openat(CWD, path, flags, Mode::empty())
        .with_context(|| format!("open the root file system {}", path.display()))?;
    if is_shifted(plan, &rootfs)? {
        let mount = clone_tree(&rootfs, Path::new(""), true)
            .with_context(|| format!("clone the root file system {}", path.display()))?;
        return Ok(Rootfs { mount, work_directory: None });
    }
    let mount = Mount::of(&rootfs)?;
    let is_mount_point = path.canonicalize().is_ok_and(|p| p == mount.mount_point);
    let ids_differ = !plan.ids.are_the_same();
    if mount.fs_type == "overlay" && is_mount_point && ids_differ {
        let base = path.parent().and_then(Path::parent).unwrap_or(path);
        let mut overlay = Overlay::parse(&mount, base)?;
        overlay.label.clone_from(&plan.mount_label);
        let work_directory = overlay.own_work_directory();
        let mount = overlay.mount(userns).inspect_err(|_| {
            if let Some(work) = &work_directory {
                let _ = std::fs::remove_dir_all(work);
            }
        })?;
        return Ok(Rootfs { mount, work_directory });
    }
    let clone = clone_tree(&rootfs, Path::new(""), true)
        .with_context(|| format!("clone the root file system {}", path.display()))?;
    let mapped = if ids_differ { idmap(clone.as_fd(), userns, true) } else { Ok(()) };
    mapped.map_err(|e| {
        let remedy = "use a storage driver on ext4, xfs or btrfs, or overlay";
        let (fs_type, why) = (&mount.fs_type, super::cannot_be_mapped(&e, remedy));
        let what = format!("ID-map the root file system {} ({fs_type})", path.display());
        anyhow::Error::new(e).context(format!("{what}: {why}"))
    })?;
    Ok(Rootfs { mount: clone, work_directory: None })
}

/// Whether the files on disk have the host's ids of the container already: engines that give mappings
/// may have changed the owners (Docker's `userns-remap`). What belongs to container root as it is must
/// not be mapped once more.
fn is_shifted(plan: &Plan, rootfs: &OwnedFd) -> Result<bool> {
    let stat = fstat(rootfs).context("look at the root file system")?;
    Ok(stat.st_uid != 0 && plan.ids.host_uid(0) == Some(stat.st_uid))
}
