//! What is done for single mounts before the tree is built.
//!
//! The sources of bind mounts with ID mappings of their own (`mounts[].uidMappings`, `gidMappings`)
//! are mapped on a place that only the builder sees; the tree then takes them from there like any
//! other directory. A tmpfs takes over the mode of the directory that it covers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use sysbox_ipc::paths;
use sysbox_kernel::mount::{attach, clone_tree, idmap};
use sysbox_kernel::ns::user_namespace;

use super::tree;
use crate::plan::{Ids, Mapping, MountPlan, Source};

/// Replaces the source of each such mount by its mapped clone. The caller is in the builder's
/// private mount namespace.
pub fn map_by_own_ids(mounts: &mut [MountPlan]) -> Result<()> {
    for (index, mount) in mounts.iter_mut().enumerate() {
        let (Source::Bind(source), Some(ids)) = (&mount.source, &mount.own_ids) else { continue };
        // As runc: the top only, unless `ridmap` asks for all of it.
        let recursive = mount.options.idmap.unwrap_or(false);
        let place = map(source, ids, (mount.options.recursive, recursive), index)
            .with_context(|| format!("mount {}", mount.destination.display()))?;
        mount.source = Source::Bind(place);
        mount.mapping = Mapping::Never;
    }
    Ok(())
}

/// As runc: /proc and /sys of the image must be directories, or absent. By a symbolic link there the
/// image would choose where they are, and what is read and written in their stead.
pub fn check_places(mounts: &[MountPlan], rootfs: BorrowedFd<'_>) -> Result<()> {
    for mount in mounts {
        let name = match mount.source {
            Source::Proc => "proc",
            Source::Sysfs => "sysfs",
            _ => continue,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        match openat2(rootfs, &mount.destination, flags, Mode::empty(), resolve) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(Errno::LOOP | Errno::NOTDIR) => bail!(
                "mount {}: filesystem {name:?} must be mounted on ordinary directory",
                mount.destination.display()
            ),
            Err(e) => {
                return Err(e).with_context(|| {
                    format!("look up {} in the image", mount.destination.display())
                });
            }
        }
    }
    Ok(())
}

/// As runc: a tmpfs without a `mode` has that of the image's directory in its place. The kernel's
/// own default, 1777, stays where the image has none.
pub fn take_over_modes(mounts: &mut [MountPlan], rootfs: BorrowedFd<'_>) -> Result<()> {
    for mount in mounts.iter_mut().filter(|mount| mount.source == Source::Tmpfs) {
        if mount.options.data.iter().any(|word| word.starts_with("mode=")) {
            continue;
        }
        let Some(directory) = tree::find(rootfs, &mount.destination)? else { continue };
        let stat = fstat(&directory)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            mount.options.data.push(format!("mode={:o}", stat.st_mode & 0o7777));
        }
    }
    Ok(())
}

/// Clones `source` (with what is mounted below it), maps it (and what is below), and attaches the
/// clone to the stage.
fn map(source: &Path, ids: &Ids, (tree, map_tree): (bool, bool), index: usize) -> Result<PathBuf> {
    let userns = user_namespace(&ids.uids, &ids.gids)
        .context("make a user namespace of the mount's uidMappings and gidMappings")?;
    let opened = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open the source {}", source.display()))?;
    let directory = FileType::from_raw_mode(fstat(&opened)?.st_mode) == FileType::Directory;
    let clone = clone_tree(&opened, Path::new(""), tree && directory)
        .with_context(|| format!("clone the source {}", source.display()))?;
    idmap(clone.as_fd(), &userns, map_tree && directory).with_context(|| {
        format!("ID-map the source {}: can its file system be ID-mapped?", source.display())
    })?;
    let place = paths::run_dir().join("stage").join(format!("mapped-{index}"));
    let made = if directory {
        std::fs::create_dir(&place)
    } else {
        std::fs::File::create(&place).map(drop)
    };
    made.with_context(|| format!("make {}", place.display()))?;
    let target: OwnedFd = openat(CWD, &place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(&clone, &target).context("attach the mapped clone")?;
    Ok(place)
}
