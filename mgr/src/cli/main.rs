//! `sysbox`: what the user asks about the system containers of this host.
//!
//! A client of the manager's gRPC API. `doctor` looks at the host itself, too, and works when no
//! daemon runs: it is then that it is needed.

mod client;
mod doctor;
mod documents;
mod events;
mod report;
mod show;
mod top;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use client::Client;

/// Shows the system containers of this host, and what they need.
#[derive(Debug, Parser)]
#[command(name = "sysbox", version)]
struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The containers: name, state, host ids, what they use
    Ps,
    /// All that is known of one container, as JSON
    Inspect {
        /// Its name, its id, or the beginning of its id
        container: String,
    },
    /// What the containers use, again and again
    Top {
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
        interval: f64,
        /// How often to look; until interrupted if not given
        #[arg(long, value_name = "COUNT")]
        count: Option<u64>,
    },
    /// What happens to containers, as it happens
    Events {
        /// Begin with what has happened already, as far back as it is kept
        #[arg(long)]
        all: bool,
        /// Only what has happened already
        #[arg(long)]
        no_follow: bool,
    },
    /// The directories that hold the stores of inner engines
    Volumes {
        /// Count the space that each takes
        #[arg(long)]
        size: bool,
    },
    /// What nobody owns any more; is removed
    Gc {
        /// Change nothing, only tell
        #[arg(long)]
        dry_run: bool,
    },
    /// Versions of this program and of the daemons
    Version,
    /// What this host has and lacks, and what to do about it
    Doctor,
    /// The level of the daemons' logs: shows it, or changes it until the daemon's end
    LogLevel {
        /// off, error, warn, info, debug, trace, or parts of the program with a level each, such as
        /// info,sysbox_mgr::broker=debug
        level: Option<String>,
        /// Only of this one: sysbox-mgr or sysbox-fs
        #[arg(long, value_name = "NAME", default_value = "")]
        daemon: String,
    },
    /// All numbers, as Prometheus reads them
    Metrics,
    /// Writes the manual pages and the completions of shells
    #[command(hide = true)]
    Documents {
        /// Directory that stands for /usr
        directory: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let Arguments { json, command } = Arguments::parse();
    let report = match command {
        Command::Ps => show::ps(&Client::connect()?.list("")?),
        Command::Inspect { container } => show::inspect(&Client::connect()?, &container)?,
        Command::Top { interval, count } => return top::run(interval, count, json),
        Command::Events { all, no_follow } => return events::run(all, no_follow, json),
        Command::Volumes { size } => show::volumes(&Client::connect()?.volumes(size)?, size),
        Command::Gc { dry_run } => show::leftovers(&Client::connect()?.gc(dry_run)?),
        Command::Version => show::version(),
        Command::Doctor => return doctor::run(json),
        Command::LogLevel { level, daemon } => {
            show::levels(&Client::connect()?.log_level(&level.unwrap_or_default(), &daemon)?)
        }
        Command::Metrics => return report::print(&Client::connect()?.metrics()?),
        Command::Documents { directory } => return documents::run(&directory),
    };
    report.print(json)
}
