//! The virtualised files, and putting them on a file system.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux_raw_sys::general::MOUNT_ATTR_RDONLY;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use sysbox_kernel::mount::{Attributes, clone_tree, set_attributes};

use super::super::Container;
use super::super::worker::Worker;

/// A detached mount of one virtualised file, and its place below the root of its file system.
#[derive(Debug)]
pub struct File {
    /// `meminfo`, `devices/system/cpu/online`
    pub place: String,
    /// The mount.
    pub mount: OwnedFd,
}

/// The places of a container's virtualised files for `proc` or `sys`.
pub fn places<'a>(container: &'a Container, file_system: &str) -> impl Iterator<Item = &'a str> {
    container.emulated_files.iter().filter_map(move |file| {
        let place = file.strip_prefix(file_system)?.strip_prefix('/')?;
        (!place.is_empty()).then_some(place)
    })
}

/// Makes a mount of a virtualised file.
///
/// # Errors
/// Also when the file is not there: a file of the host's must not show in its place.
pub fn file(
    container: &Container,
    file_system: &str,
    place: &str,
    read_only: bool,
) -> io::Result<File> {
    let path = container.emulated_dir.join(file_system).join(place);
    let mount = clone_tree(CWD, &path, false).map_err(|error| {
        io::Error::new(error.kind(), format!("cloning {}: {error}", path.display()))
    })?;
    if read_only {
        let change = Attributes {
            set: u64::from(MOUNT_ATTR_RDONLY),
            ..Attributes::default()
        };
        set_attributes(&mount, change, false)?;
    }
    let place = place.to_owned();
    Ok(File { place, mount })
}

/// All of them for `proc` or `sys`.
pub fn files(container: &Container, file_system: &str, read_only: bool) -> io::Result<Vec<File>> {
    places(container, file_system)
        .map(|place| file(container, file_system, place, read_only))
        .collect()
}

/// Virtualised files that go onto one file system.
#[derive(Debug, Default)]
pub struct Cover {
    /// The files.
    pub files: Vec<File>,
    /// The network namespace in which their places are to be looked for, where that matters.
    pub net: Option<OwnedFd>,
}

impl Cover {
    /// Attaches the files below `root`, the root of a proc or sysfs. A place that this instance
    /// does not have (`subset=pid`, a kernel without the feature) has nothing to be covered.
    pub fn attach(&self, worker: &mut Worker, root: BorrowedFd<'_>) -> io::Result<()> {
        match &self.net {
            Some(net) => worker.in_net_namespace(net, |_| self.attach_here(root))?,
            None => self.attach_here(root),
        }
    }

    fn attach_here(&self, root: BorrowedFd<'_>) -> io::Result<()> {
        for file in &self.files {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            match move_mount(file.mount.as_fd(), "", root, file.place.as_str(), flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    let error = io::Error::from(error);
                    let text = format!("attaching {}: {error}", file.place);
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
        Ok(())
    }
}

/// A new file system, not attached anywhere yet, and what is to cover parts of it.
#[derive(Debug)]
pub struct Tree {
    /// The file system.
    pub mount: OwnedFd,
    /// Its virtualised files.
    pub cover: Cover,
}
