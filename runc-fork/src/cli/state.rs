//! `state`: what a container is doing, as JSON.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::Global;
use crate::state::{Directory, State, Status};

/// output the state of a container
#[derive(Args, Debug)]
pub struct StateArgs {
    /// container id
    pub id: String,
}

/// Runs the command.
pub fn run(global: &Global, args: &StateArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let state = directory.load()?;
    super::say(serde_json::to_string_pretty(&describe(&directory, &state))?)?;
    Ok(())
}

/// runc's fields: the runtime-spec's and a few of its own.
pub(super) fn describe(directory: &Directory, state: &State) -> serde_json::Value {
    let status = state.status(directory);
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.init.pid },
        "status": status.as_str(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "owner": "root",
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value
}
