//! On which mount something is, found out without asking any file system: it may be one that the
//! container serves.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::super::Container;
use super::{Attempt, or_continue};

/// Where a descriptor is.
#[derive(Debug)]
pub struct Place {
    /// Id of the mount.
    pub mount_id: u64,
    /// Whether it is the root of that mount.
    pub is_root: bool,
}

impl Place {
    /// Of a descriptor.
    pub fn of(object: impl AsFd) -> Attempt<Self> {
        Self::at(object, "", AtFlags::EMPTY_PATH)
    }

    /// Of what a path leads to.
    pub fn at(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Attempt<Self> {
        let flags = flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        // Nothing is wished for: what is looked at here the kernel always tells, while a FUSE file
        // system that was mounted inside refuses every wish of somebody outside.
        let found = or_continue(statx(dir, name, flags, StatxFlags::empty()))?;
        Ok(Self {
            mount_id: found.stx_mnt_id,
            is_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }
}

/// The device number of the file system that holds the virtualised files.
pub fn emulated_device(container: &Container) -> Attempt<u64> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = or_continue(statx(CWD, &container.emulated_dir, flags, StatxFlags::empty()))?;
    Ok(rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor))
}
