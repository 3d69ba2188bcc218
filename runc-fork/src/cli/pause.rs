//! `pause` and `resume`.

use anyhow::{Result, bail};
use clap::Args;
use sysbox_ipc::{MgrClient, crash};

use super::Global;
use crate::log;
use crate::state::{Directory, Status};

/// `pause` and `resume`
#[derive(Args, Debug)]
pub struct PauseArgs {
    /// container id
    pub id: String,
}

/// Freezes every process of the container.
pub fn pause(global: &Global, args: &PauseArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match state.status(&directory) {
        Status::Running | Status::Created => {
            crash::point("pause.begun");
            state.cgroup.freeze()?;
            crash::point("pause.done");
            let manager = MgrClient::connect();
            if let Err(e) = manager.and_then(|manager| manager.paused(&directory.manager_id())) {
                log::warn(&format!(
                    "an image made of the paused container may lack attributes of inner images: {e}"
                ));
            }
            Ok(())
        }
        other => bail!("container not running: {}", other.as_str()),
    }
}

/// Lets a paused container go on.
pub fn resume(global: &Global, args: &PauseArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match state.status(&directory) {
        Status::Paused => {
            crash::point("resume.begun");
            Ok(state.cgroup.thaw()?)
        }
        _ => bail!("container not paused"),
    }
}
