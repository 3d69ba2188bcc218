//! Going to a private mount namespace and back.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sysbox_kernel::ns::{LinkNameSpaceType, move_into_link_name_space};

/// The host's mount namespace and the working directory in it, both of which a private mount
/// namespace takes away.
pub struct HostView {
    namespace: fs::File,
    directory: OwnedFd,
}

impl HostView {
    /// Remembers both as they are now.
    pub fn remember() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            namespace: fs::File::open("/proc/self/ns/mnt").context("open /proc/self/ns/mnt")?,
            directory: openat(CWD, ".", flags, Mode::empty()).context("open the directory")?,
        })
    }

    /// Goes back there.
    pub fn restore(&self) -> Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .context("return to the host's mount namespace")?;
        rustix::process::fchdir(&self.directory).context("return to the working directory")
    }
}
