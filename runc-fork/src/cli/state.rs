//! `state`: what a container is doing, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Global;
use crate::state::{Directory, State, Status};

/// output the state of a container
#[derive(Args, Debug)]
pub struct StateArgs {
    /// container id
    pub id: String,
}

/// runc's fields, in its order: the runtime-spec's and a few of its own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Described {
    oci_version: String,
    pub(super) id: String,
    pub(super) pid: i32,
    pub(super) status: &'static str,
    pub(super) bundle: PathBuf,
    rootfs: PathBuf,
    pub(super) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    pub(super) owner: &'static str,
}

/// Runs the command.
pub fn run(global: &Global, args: &StateArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let state = directory.load()?;
    super::say(serde_json::to_string_pretty(&describe(&directory, state))?)?;
    Ok(())
}

/// What `state` and `list` tell.
pub(super) fn describe(directory: &Directory, state: State) -> Described {
    let status = state.status(directory);
    Described {
        oci_version: state.oci_version,
        id: state.id,
        pid: if status == Status::Stopped { 0 } else { state.init.pid },
        status: status.as_str(),
        bundle: state.bundle,
        rootfs: state.rootfs,
        created: state.created,
        annotations: state.annotations,
        owner: "root",
    }
}
