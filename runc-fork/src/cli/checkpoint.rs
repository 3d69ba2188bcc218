//! `checkpoint` and `restore`: what the command line knows and the runtime does not do.
//!
//! CRIU cannot dump a container whose system calls are handed to a supervisor, and `features` says
//! so; an engine that asks all the same gets an error that it can show, not a usage message.

use anyhow::{Result, bail};
use clap::Args;

/// `checkpoint` and `restore`, with whatever options.
#[derive(Args, Debug)]
pub struct CheckpointArgs {
    /// options of runc, and the container id
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

/// Refuses.
pub fn run(command: &str) -> Result<()> {
    bail!(
        "{command} is not supported: a system container cannot be checkpointed, because its mounts \
         are made by a supervisor that CRIU cannot dump; commit the container or back up its volumes"
    )
}
