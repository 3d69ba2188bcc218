//! Handing the container's v2 directory over to container root.

use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::error::{Context, Result};

/// The kernel's list of the files that may be given away safely.
const KERNEL_LIST: &str = "/sys/kernel/cgroup/delegate";

/// What that list holds at least, for when sysfs is not mounted.
const MINIMUM: &str = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";

impl Cgroup {
    /// Makes host ids `uid` and `gid` (container root) owner of the container's directory in the
    /// unified hierarchy and of those of its files that the kernel lists in
    /// `/sys/kernel/cgroup/delegate`: with them processes are moved and controllers are switched on
    /// below. All others, the limits above all, stay host root's.
    ///
    /// v1 directories are never given away: v1 has no safe delegation.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        let Some(dir) = self.unified() else {
            return Ok(());
        };
        chown_tree_node(dir, uid, gid).context("delegate cgroup", dir)
    }
}

/// Gives one cgroup directory and its delegatable files to a user.
pub(crate) fn chown_tree_node(dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let list = fs::read_to_string(KERNEL_LIST).unwrap_or_else(|_| MINIMUM.to_owned());
    for name in list.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
        match chown(dir.join(name), Some(uid), Some(gid)) {
            // A file of a controller that is not enabled here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    chown(dir, Some(uid), Some(gid))
}
