//! `delete`: nothing of the container stays.

use anyhow::Result;
use clap::Args;

use super::Global;
use crate::run::delete;
use crate::state::Directory;

/// delete any resources held by the container, often used with detached containers
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// forcibly deletes the container if it is still running (uses SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// container id
    pub id: String,
}

/// Runs the command.
pub fn run(global: &Global, args: &DeleteArgs) -> Result<()> {
    delete::delete(&Directory::new(&global.root, &args.id)?, &args.id, args.force)
}
