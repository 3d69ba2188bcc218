//! The virtualised files, and putting them on a file system.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use linux_raw_sys::general::{MOUNT_ATTR_RDONLY, PROC_SUPER_MAGIC, SYSFS_MAGIC};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use sysbox_ipc::paths::{ALL, flat};
use sysbox_kernel::mount::{Attributes, clone_tree, set_attributes};

use super::super::Container;
use super::super::worker::Worker;

/// One of the file systems that carry virtualised files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Proc,
    Sysfs,
}

/// Below this place of a proc, what exists depends on the network namespace of who looks.
pub const OF_NET_NAMESPACE: &str = "sys/net/";

impl Carrier {
    /// The carrier of this file system type.
    pub fn of_type(name: &[u8]) -> Option<Self> {
        [Self::Proc, Self::Sysfs].into_iter().find(|carrier| carrier.file_system() == name)
    }

    /// The name of its file system type.
    pub fn file_system(self) -> &'static [u8] {
        match self {
            Self::Proc => b"proc",
            Self::Sysfs => b"sysfs",
        }
    }

    /// What statfs(2) calls it.
    pub fn magic(self) -> u64 {
        u64::from(match self {
            Self::Proc => PROC_SUPER_MAGIC,
            Self::Sysfs => SYSFS_MAGIC,
        })
    }

    /// Its directory in `emulated_dir`.
    fn dir(self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sysfs => "sys",
        }
    }

    /// Where a container's virtualised files are on it, below its root: `meminfo`,
    /// `devices/system/cpu/online`.
    fn places(self, container: &Container) -> impl Iterator<Item = &str> {
        container.emulated_files.iter().filter_map(move |file| {
            let place = file.strip_prefix(self.dir())?.strip_prefix('/')?;
            (!place.is_empty()).then_some(place)
        })
    }
}

/// A detached mount of one virtualised file, and its place on the carrier.
#[derive(Debug)]
struct File {
    place: String,
    mount: OwnedFd,
}

/// The virtualised files that go onto one file system.
#[derive(Debug, Default)]
pub struct Cover {
    files: Vec<File>,
    /// The network namespace in which their places are to be looked for, where that matters.
    net: Option<OwnedFd>,
}

impl Cover {
    /// Finds the files for a carrier.
    ///
    /// `chosen` says which places are wanted; `net` is asked for the caller's network namespace.
    ///
    /// # Errors
    /// Also when a virtualised file is not there: the host's must not show in its place.
    pub fn find(
        container: &Container,
        carrier: Carrier,
        read_only: bool,
        chosen: impl Fn(&str) -> bool,
        net: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        let places: Vec<&str> = carrier.places(container).filter(|p| chosen(p)).collect();
        let is_of_net = |place: &&str| place.starts_with(OF_NET_NAMESPACE);
        let net = match carrier == Carrier::Proc && places.iter().any(is_of_net) {
            true => Some(net()?),
            false => None,
        };
        let dir = container.emulated_dir.join(ALL);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &dir, flags, Mode::empty())?;
        let file = |place| file(&dir, carrier, place, read_only);
        let files = places.into_iter().map(file).collect::<io::Result<_>>()?;
        Ok(Self { files, net })
    }

    /// How many files they are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Attaches the files below `root`, the root of the carrier. What that does not have (`subset=pid`, a
    /// kernel without the feature) needs no cover.
    pub fn attach(&self, worker: &mut Worker, root: BorrowedFd<'_>) -> io::Result<()> {
        match &self.net {
            Some(net) => worker.in_net_namespace(net, |_| self.attach_here(root))?,
            None => self.attach_here(root),
        }
    }

    fn attach_here(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        for file in &self.files {
            // Not looked for before: that would be one more system call for each of many files. It is
            // the place alone that may not exist, as the mount is named by its descriptor.
            match move_mount(&file.mount, "", root, file.place.as_str(), flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(with_place("attaching", &file.place, error.into())),
            }
        }
        Ok(())
    }
}

/// Makes a mount of a virtualised file.
fn file(dir: &OwnedFd, carrier: Carrier, place: &str, read_only: bool) -> io::Result<File> {
    let name = flat(&format!("{}/{place}", carrier.dir()));
    let mount = clone_tree(dir, name.as_ref(), false)
        .map_err(|error| with_place("cloning", place, error))?;
    if read_only {
        let change = Attributes { set: u64::from(MOUNT_ATTR_RDONLY), ..Attributes::default() };
        set_attributes(&mount, change, false)?;
    }
    let place = place.to_owned();
    Ok(File { place, mount })
}

fn with_place(what: &str, place: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {place}: {error}"))
}
