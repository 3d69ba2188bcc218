//! `start`: the waiting init becomes its program.

use anyhow::Result;
use clap::Args;

use super::Global;
use crate::run::start;
use crate::state::Directory;

/// executes the user defined process in a created container
#[derive(Args, Debug)]
pub struct StartArgs {
    /// container id
    pub id: String,
}

/// Runs the command.
pub fn run(global: &Global, args: &StartArgs) -> Result<()> {
    start::start(&Directory::new(&global.root, &args.id)?)?.wait_ready();
    Ok(())
}
