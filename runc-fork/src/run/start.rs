//! `start`: lets the waiting init become its program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use sysbox_ipc::crash;
use sysbox_kernel::process::set_fs_ids;

use super::hooks;
use super::notify::Proxy;
use crate::state::{Directory, State, Status};

/// The cgroup that the container's first process lives in: a leaf, so that controllers can be
/// enabled beside it (cgroup v2, "no internal processes"). systemd uses the same name.
pub const INIT_LEAF: &str = "init.scope";

/// A container whose program runs.
pub struct Started {
    state: State,
    notify: Option<Proxy>,
}

impl Started {
    /// Waits until the program is ready, if the caller's service manager wants to know.
    pub fn wait_ready(self) {
        if let Some(proxy) = self.notify {
            proxy.wait_ready(&self.state);
        }
    }
}

/// Starts a created container.
pub fn start(directory: &Directory) -> Result<Started> {
    let _lock = directory.lock()?;
    crash::point("start.begun");
    let state = directory.load()?;
    match state.status(directory) {
        Status::Created => {}
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
    let notify = Proxy::open(directory)?;
    move_to_leaf(&state).context("move init into its own cgroup leaf")?;
    let fifo = directory.start_fifo();
    let mut file = fs::File::options()
        .write(true)
        // Without a reader (init has died just now) this fails instead of waiting.
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(&fifo)
        .with_context(|| format!("open {}", fifo.display()))?;
    file.write_all(b"0").context("tell init to start")?;
    crash::point("start.told");
    fs::remove_file(&fifo).with_context(|| format!("remove {}", fifo.display()))?;
    let spec = directory.spec()?;
    let poststart = spec.hooks().as_ref().and_then(|h| h.poststart().as_ref());
    let running = state.to_oci(Status::Running);
    // As the runtime-spec has it since 1.2, and runc: the container does not outlive a failure.
    hooks::run("poststart", poststart, &running, hooks::By::Runtime).inspect_err(|_| {
        let _ = state.cgroup.kill_all(9);
    })?;
    Ok(Started { state, notify })
}

/// Not earlier than `start`: until then engines look at init to learn which cgroup is the
/// container's (for statistics and OOM events), and that is the parent, with the limits.
fn move_to_leaf(state: &State) -> Result<()> {
    let Some(dir) = state.cgroup.unified() else { return Ok(()) };
    let leaf = dir.join(INIT_LEAF);
    let uid = state.ids.host_uid(0).unwrap_or_default();
    let gid = state.ids.host_gid(0).unwrap_or_default();
    // Made with the file-system ids of container root, the leaf and its files are its own.
    let old = set_fs_ids(uid, gid)?;
    let made = fs::create_dir(&leaf);
    set_fs_ids(old.0, old.1)?;
    match made {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("make {}", leaf.display()));
        }
        _ => {}
    }
    fs::write(leaf.join("cgroup.procs"), state.init.pid.to_string())
        .with_context(|| format!("put init into {}", leaf.display()))
}
