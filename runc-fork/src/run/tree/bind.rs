//! Bind mounts and volumes: clones of the host's trees, ID-mapped so that the host root's files
//! are container root's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use sysbox_kernel::features::Feature;
use sysbox_kernel::mount::{Attributes, Propagation, clone_tree, idmap, set_attributes};

use super::mountinfo::Mount as Mounted;
use super::{Kind, own_ids};
use crate::plan::{LOCKED, Mapping, MountOptions, MountPlan, Plan, Source};

/// Opens the source of the user's bind mount.
pub fn open_source(source: &Path) -> Result<OwnedFd> {
    openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open the source {}", source.display()))
}

/// Opens the store of an inner engine, whose path has no links.
pub fn open_store(source: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, source, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .with_context(|| format!("open the store {}", source.display()))
}

/// A detached clone of `source`, ID-mapped by `own` if it has a mapping of its own, otherwise by the
/// container's where that is possible, with the mount's attributes.
pub fn clone(
    plan: &Plan,
    userns: BorrowedFd<'_>,
    mount: &MountPlan,
    own: Option<BorrowedFd<'_>>,
    (source, opened): (&Path, OwnedFd),
    warnings: &mut Vec<String>,
) -> Result<(OwnedFd, Kind)> {
    check_locks(mount, &opened)?;
    let stat = fstat(&opened)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let recursive = mount.options.recursive && directory;
    if let Some(own) = own {
        let map_tree = mount.options.idmap.unwrap_or(false) && recursive;
        let others = (!mount.knows_user_namespace).then_some(userns);
        let clone = own_ids::clone(source, &opened, own, (recursive, map_tree), others)
            .with_context(|| {
                format!("ID-map the source {}: can its file system be ID-mapped?", source.display())
            })?;
        apply_attributes(&clone, mount)?;
        return Ok((clone, if directory { Kind::Directory } else { Kind::File }));
    }
    let clone = clone_tree(&opened, Path::new(""), recursive)
        .with_context(|| format!("clone the source {}", source.display()))?;
    let tmpfs_cannot = is_tmpfs(&opened)? && !Feature::IdmappedTmpfs.may_be_used();
    // What already belongs to the container's ids (a volume of an earlier life with another
    // runtime, a socket of the container itself) would be shifted out of sight.
    if mount.mapping != Mapping::Never
        && !plan.ids.owns_uid(stat.st_uid)
        // With `idmap` the user says that what is mounted below is to stay as it is.
        && let Err(e) = map(&clone, userns, mount.options.idmap.unwrap_or(recursive) && recursive, tmpfs_cannot)
    {
        if mount.destination == Path::new("/dev/shm") && is_tmpfs(&opened)? {
            return Ok((own_shared_memory(plan, mount, &opened)?, Kind::Directory));
        }
        let fs_type = Mounted::of(&opened).map(|m| m.fs_type).unwrap_or_default();
        let what = format!("the source {} ({fs_type}) cannot be ID-mapped: {e}", source.display());
        if mount.mapping == Mapping::Always {
            bail!(
                "{what}; keep it on ext4, xfs or btrfs, or let its files belong to nobody inside: list it in SYSBOX_SKIP_UID_SHIFT, or leave out SYSBOX_FSUID_MAP_FAIL_ON_ERROR"
            );
        }
        let destination = mount.destination.display();
        warnings.push(format!("{destination}: {what}; its files belong to nobody inside"));
    }
    apply_attributes(&clone, mount)?;
    Ok((clone, if directory { Kind::Directory } else { Kind::File }))
}

/// The engine's tmpfs for /dev/shm where the kernel cannot ID-map it: a new one of the same size,
/// which only does not share its content with containers that join this one's ipc namespace.
fn own_shared_memory(plan: &Plan, mount: &MountPlan, source: &OwnedFd) -> Result<OwnedFd> {
    let stat = rustix::fs::fstatvfs(source).context("ask for the size of /dev/shm")?;
    let size = format!("size={}", stat.f_blocks.saturating_mul(stat.f_frsize));
    let mut tmpfs = mount.clone();
    tmpfs.options.data = vec!["mode=1777".to_owned(), size];
    tmpfs.source = Source::Tmpfs;
    if let Some(label) = &plan.mount_label {
        tmpfs.take_label(label);
    }
    super::pseudo::tmpfs(&plan.ids, &tmpfs)
}

fn is_tmpfs(fd: &OwnedFd) -> Result<bool> {
    /// `TMPFS_MAGIC`
    const TMPFS: i64 = 0x0102_1994;
    #[allow(clippy::unnecessary_cast)] // f_type differs between architectures
    Ok(rustix::fs::fstatfs(fd)?.f_type as i64 == TMPFS)
}

/// ID-maps the tree; if something below cannot be mapped, at least its top.
pub fn map(
    clone: &OwnedFd,
    userns: BorrowedFd<'_>,
    recursive: bool,
    refuse: bool,
) -> std::io::Result<()> {
    if refuse {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    match idmap(clone, userns, recursive) {
        Err(_) if recursive => idmap(clone, userns, false),
        other => other,
    }
}

/// As runc, whose mounts are made inside: where the spec has a user namespace, the options may not take
/// away what the kernel locks in one.
fn check_locks(mount: &MountPlan, source: &OwnedFd) -> Result<()> {
    if !mount.knows_user_namespace
        || !matches!(mount.source, Source::Bind(_))
        || !mount.options.changes
    {
        return Ok(());
    }
    // All but the answer of a read-only file system is the mount's own, and cheap.
    if !mount.options.breaks_locks(attributes_with_file_system(source)?) {
        return Ok(());
    }
    let shown = Mounted::of(source)?.options;
    if mount.options.breaks_locks(MountOptions::attributes_of(&shown)) {
        bail!(
            "operation not permitted: the source is mounted with {shown}, of which a container with a user namespace may not take anything off; leave the options that do so out"
        );
    }
    Ok(())
}

/// The attributes of the mount that `file` lies in, `ro` also where only the file system is.
fn attributes_with_file_system(file: &OwnedFd) -> Result<u64> {
    use linux_raw_sys::general as raw;
    use rustix::fs::StatVfsMountFlags as Flags;
    let has = rustix::fs::fstatvfs(file).context("look at the source's mount")?.f_flag;
    let mode = if has.intersects(Flags::NOATIME | Flags::RELATIME) {
        0
    } else {
        raw::MOUNT_ATTR_STRICTATIME
    };
    let bits = [
        (Flags::RDONLY, raw::MOUNT_ATTR_RDONLY),
        (Flags::NOSUID, raw::MOUNT_ATTR_NOSUID),
        (Flags::NODEV, raw::MOUNT_ATTR_NODEV),
        (Flags::NOEXEC, raw::MOUNT_ATTR_NOEXEC),
        (Flags::NOATIME, raw::MOUNT_ATTR_NOATIME),
        (Flags::NODIRATIME, raw::MOUNT_ATTR_NODIRATIME),
    ];
    let set = bits.iter().filter(|(flag, _)| has.contains(*flag));
    Ok(u64::from(set.fold(mode, |all, (_, bit)| all | bit)))
}

/// Sets `ro`, `nosuid`... on a detached mount.
pub fn apply_attributes(mount_fd: impl AsFd, mount: &MountPlan) -> Result<()> {
    let own = match mount.source {
        Source::Bind(_) => {
            mount.options.of_bind(if mount.knows_user_namespace { LOCKED } else { 0 })
        }
        _ => mount.options.attributes,
    };
    for ((set, clear), recursive) in [(own, false), (mount.options.recursive_attributes, true)] {
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
