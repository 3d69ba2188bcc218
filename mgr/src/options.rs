//! The command line.

use std::path::PathBuf;

/// Manages system containers: id ranges, volumes of inner engines, mounts made inside.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sysbox-mgr", version)]
pub struct Options {
    /// Directory of the sockets and the pid file [default: /run/sysbox, or $SYSBOX_RUN_DIR]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Directory of the containers' records and volumes; it must survive a reboot
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sysbox")]
    pub data_root: PathBuf,

    /// What to log: off, error, warn, info, debug, trace, or parts of the program with a level each
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Where the log goes
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    pub log_to: sysbox_daemon::log::Output,

    /// Serve Prometheus metrics to everybody who can reach this address, for example 127.0.0.1:9477
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<std::net::SocketAddr>,

    /// User whose entries in the subordinate id files are given to containers
    #[arg(long, value_name = "USER", default_value = "sysbox")]
    pub subid_user: String,

    /// File with the subordinate user ids, subuid(5)
    #[arg(long, value_name = "FILE", default_value = "/etc/subuid")]
    pub subuid_file: PathBuf,

    /// File with the subordinate group ids, subgid(5)
    #[arg(long, value_name = "FILE", default_value = "/etc/subgid")]
    pub subgid_file: PathBuf,

    /// Never add an entry to the subordinate id files: what they give is all that there is
    #[arg(long)]
    pub fixed_subids: bool,

    /// What to do instead of being the daemon
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// See [`Options::command`].
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Keeps descriptors for the next manager; standard input is the socket to listen on
    #[command(hide = true)]
    Hold,
}
