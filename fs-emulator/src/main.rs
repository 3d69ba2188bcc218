//! Command line of `sysbox-fs`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sysbox_daemon::log;

/// Serves the files of /proc and /sys that tell a system container of itself.
#[derive(Debug, Parser)]
#[command(name = "sysbox-fs", version)]
struct Arguments {
    /// Directory of the socket, the mount and the state; $SYSBOX_RUN_DIR or /run/sysbox if not given
    #[arg(long, value_name = "DIR", global = true)]
    run_dir: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug, trace, or parts of the program with a level each
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log_level: String,
    /// Where the log goes
    #[arg(long, value_name = "WHERE", default_value = "auto", global = true)]
    log_to: log::Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keeps the FUSE device open for the next daemon; standard input is the socket to listen on
    #[command(hide = true)]
    Hold,
}

fn main() -> anyhow::Result<()> {
    sysbox_kernel::fuse::keep_large_buffers_lazy();
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Hold)) {
        return Ok(sysbox_ipc::store::run_holder()?);
    }
    log::init("sysbox-fs", &arguments.log_level, arguments.log_to)?;
    sysbox_fs::daemon::run(&arguments.run_dir.unwrap_or_else(sysbox_ipc::paths::run_dir))
}
