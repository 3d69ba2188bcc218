//! Command line of `sysbox-fs`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

/// Serves the files of /proc and /sys that tell a system container of itself.
#[derive(Debug, Parser)]
#[command(name = "sysbox-fs", version)]
struct Arguments {
    /// Directory of the socket, the mount and the state; $SYSBOX_RUN_DIR or /run/sysbox if not given
    #[arg(long, value_name = "DIR", global = true)]
    run_dir: Option<PathBuf>,
    /// How much is logged to standard error: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    log_level: LevelFilter,
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
    let stderr_is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_max_level(arguments.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(stderr_is_terminal)
        .init();
    let run_dir = arguments.run_dir.unwrap_or_else(sysbox_ipc::paths::run_dir);
    match arguments.command {
        Some(Command::Hold) => Ok(sysbox_ipc::store::run_holder()?),
        None => sysbox_fs::daemon::run(&run_dir),
    }
}
