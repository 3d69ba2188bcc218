//! `start`: lets the waiting init become its program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use sysbox_ipc::crash;

use super::hooks;
use super::leaf;
use super::notify::Proxy;
use crate::state::{Directory, State, Status};

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
    if !state.enters_leaf {
        leaf::put(&state).context("move init into its own cgroup leaf")?;
    }
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
