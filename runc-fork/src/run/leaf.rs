//! The cgroup that the container's first process lives in: a leaf, so that controllers can be enabled
//! beside it (cgroup v2, "no internal processes"). systemd uses the same name.
//!
//! Init goes there between `start` and its program, not earlier: until then engines look at init to
//! learn which cgroup is the container's (for statistics and OOM events), and that is the parent, with
//! the limits. It goes there by itself, since a move waits for a grace period of RCU (milliseconds),
//! for which nobody but init needs to wait. What `exec` makes is born in the leaf, wherever init is.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sysbox_cgroups::Cgroup;
use sysbox_kernel::process::set_fs_ids;

use crate::plan::Ids;
use crate::state::State;

/// Its name.
pub const INIT_LEAF: &str = "init.scope";

const PROCS: &str = "cgroup.procs";

/// Makes the leaf and opens the way in, which init is given; `None` on hosts without cgroup v2.
pub fn make(cgroup: &Cgroup, ids: &Ids) -> Result<Option<OwnedFd>> {
    let Some(dir) = cgroup.unified() else { return Ok(None) };
    let path = make_directory(dir, ids)?.join(PROCS);
    let file = fs::File::options().write(true).open(&path);
    Ok(Some(file.with_context(|| format!("open {}", path.display()))?.into()))
}

/// Moves the calling process; the kernel judges by the rights of who opened the way in.
pub fn enter(way_in: impl AsFd) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(&way_in, b"0"))
        .map(drop)
        .with_context(|| format!("move into the cgroup leaf {INIT_LEAF}"))
}

/// Moves the init of a container that an earlier version has made.
pub fn put(state: &State) -> Result<()> {
    let Some(dir) = state.cgroup.unified() else { return Ok(()) };
    let leaf = make_directory(dir, &state.ids)?;
    fs::write(leaf.join(PROCS), state.init.pid.to_string())
        .with_context(|| format!("put init into {}", leaf.display()))
}

/// With the file-system ids of container root, the leaf and its files are its own.
fn make_directory(dir: &Path, ids: &Ids) -> Result<PathBuf> {
    let leaf = dir.join(INIT_LEAF);
    let uid = ids.host_uid(0).unwrap_or_default();
    let gid = ids.host_gid(0).unwrap_or_default();
    let old = set_fs_ids(uid, gid)?;
    let made = fs::create_dir(&leaf);
    set_fs_ids(old.0, old.1)?;
    match made {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("make {}", leaf.display()))
        }
        _ => Ok(leaf),
    }
}
