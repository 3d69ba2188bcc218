//! The manager's own surroundings: where a worker thread comes from and goes back to, and what
//! this kernel can do.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_fd,
    fsmount, fsopen, move_mount,
};
use sysbox_kernel::{mount, mount_table, notify};

/// Methods that newer kernels have. Each is probed by trying; each has another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// procfs takes the pid namespace as an option (6.18). Otherwise a child is born into it.
    pub pidns_option: bool,
    /// Mounts can be attached to a detached tree (6.15). Otherwise the virtualised files are
    /// attached right after the mount itself, and for some microseconds it shows without them.
    pub detached_trees: bool,
    /// A single mount and what is on it can be asked for (6.8). Otherwise the caller's whole mount
    /// table is read.
    pub single_mounts: bool,
    /// A mount can be looked for in any mount namespace (6.11). Otherwise what the broker makes for a
    /// container is not bounded, but for `fs.mount-max` in each namespace.
    pub foreign_mounts: bool,
}

impl Features {
    /// Finds out what this kernel has.
    ///
    /// # Errors
    /// When not even a plain procfs can be made: the process lacks rights.
    pub fn probe() -> io::Result<Self> {
        let own = open("/proc/self/ns/pid", OFlags::RDONLY)?;
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let pidns_option = fsconfig_set_fd(&context, "pidns", &own).is_ok();
        fsconfig_create(&context)?;
        let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let file = mount::clone_tree(CWD, "/proc/uptime".as_ref(), false)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let detached_trees = move_mount(&file, "", &tree, "uptime", flags).is_ok();
        let here = open("/", OFlags::PATH)?;
        let here = mount_table::mount_of(here);
        let namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
        let foreign_mounts = match (&here, mount_table::namespace_of(namespace)) {
            (Ok(here), Ok(namespace)) => mount_table::is_there(namespace, *here).unwrap_or(false),
            _ => false,
        };
        let single_mounts = here.is_ok_and(|here| mount_table::describe(here).is_ok());
        Ok(Self { pidns_option, detached_trees, single_mounts, foreign_mounts })
    }
}

/// What every worker thread holds on to.
#[derive(Debug)]
pub struct Host {
    pub features: Features,
    /// The procfs in which thread ids of notifications are looked up.
    pub proc: OwnedFd,
    pub root: OwnedFd,
    pub mount_namespace: OwnedFd,
    pub net_namespace: OwnedFd,
    pub pid_namespace: OwnedFd,
}

impl Host {
    pub fn new(features: Features) -> io::Result<Self> {
        let path = OFlags::PATH | OFlags::DIRECTORY;
        Ok(Self {
            features,
            proc: open("/proc", path)?,
            root: open("/", path)?,
            mount_namespace: open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?,
            net_namespace: open("/proc/thread-self/ns/net", OFlags::RDONLY)?,
            pid_namespace: open("/proc/thread-self/ns/pid", OFlags::RDONLY)?,
        })
    }

    /// A new detached procfs of another pid namespace, by whichever method there is.
    ///
    /// `options` are keys with a value, or flags without one.
    pub fn new_proc(
        &self,
        pid_namespace: &OwnedFd,
        options: &[(CString, Option<CString>)],
        attributes: MountAttrFlags,
    ) -> io::Result<OwnedFd> {
        if !self.features.pidns_option {
            let own = &self.pid_namespace;
            return notify::new_proc_by_child(pid_namespace, own, options, attributes.bits());
        }
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_options(&context, options)?;
        fsconfig_set_fd(&context, "pidns", pid_namespace)?;
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Ok(fsmount(&context, flags, attributes)?)
    }
}

/// Gives options to a file system that is being made.
pub fn set_options(
    context: &OwnedFd,
    options: &[(CString, Option<CString>)],
) -> rustix::io::Result<()> {
    for (key, value) in options {
        match value {
            Some(value) => {
                rustix::mount::fsconfig_set_string(context, key.as_c_str(), value.as_c_str())?;
            }
            None => rustix::mount::fsconfig_set_flag(context, key.as_c_str())?,
        }
    }
    Ok(())
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("opening {path} for the mount broker: {error}"))
    })
}

/// Most of a file of procfs that is read, bytes: mount tables of some twenty thousand mounts. A
/// container can make tables of any size, and several requests at once.
const LONGEST: u64 = 4 << 20;

/// Reads a file of procfs, by its place below a directory.
///
/// # Errors
/// `EFBIG` also for one that is longer than what is ever needed.
pub fn read_file(dir: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(dir, name, flags, Mode::empty())?);
    let mut text = Vec::with_capacity(4096);
    let length = file.take(LONGEST).read_to_end(&mut text)?;
    if length as u64 == LONGEST {
        return Err(Errno::FBIG.into());
    }
    Ok(text)
}
