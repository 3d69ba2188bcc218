//! What can be typed: runc's commands and options, by the same names.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// OCI runtime for system containers
#[derive(Debug, Parser)]
#[command(name = "sysbox-runc", disable_version_flag = true)]
pub struct Arguments {
    /// Options before the command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that stand before the command.
#[derive(Args, Debug)]
pub struct Global {
    /// root directory for storage of container state
    #[arg(long, default_value = "/run/sysbox-runc")]
    pub root: PathBuf,
    /// set the log file to write messages to (default is stderr)
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// set the log format ('text' or 'json')
    #[arg(long, default_value = "text")]
    pub log_format: String,
    /// enable debug logging
    #[arg(long)]
    pub debug: bool,
    /// enable systemd cgroup support; expects cgroupsPath to be of the form "slice:prefix:name"
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// accepted for compatibility: the runtime itself always runs as root
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub rootless: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// create a container
    Create(CreateArgs),
    /// executes the user defined process in a created container
    Start {
        /// container id
        id: String,
    },
    /// create and run a container
    Run(RunArgs),
    /// delete any resources held by the container, often used with detached containers
    Delete {
        /// forcibly deletes the container if it is still running (uses SIGKILL)
        #[arg(short, long)]
        force: bool,
        /// container id
        id: String,
    },
    /// send the specified signal (default: SIGTERM) to the container's init process
    Kill(KillArgs),
    /// suspend all processes inside the container
    Pause {
        /// container id
        id: String,
    },
    /// resume all processes that have been previously paused
    Resume {
        /// container id
        id: String,
    },
    /// execute new process inside the container
    Exec(ExecArgs),
    /// output the state of a container
    State {
        /// container id
        id: String,
    },
    /// lists containers started with the given root
    List(ListArgs),
    /// display the processes running inside a container
    Ps(PsArgs),
    /// display container events such as OOM notifications, and cpu, memory and I/O usage statistics
    Events(EventsArgs),
    /// update container resource constraints
    Update(UpdateArgs),
    /// show the enabled features
    Features,
}

/// `create`
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// accepted for compatibility: the root is always changed by pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// accepted for compatibility: the container always has its own session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// container id
    pub id: String,
}

/// `run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// What `create` takes.
    #[command(flatten)]
    pub create: CreateArgs,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub keep: bool,
}

/// `kill`
#[derive(Args, Debug)]
pub struct KillArgs {
    /// send the specified signal to all processes inside the container
    #[arg(short, long)]
    pub all: bool,
    /// container id
    pub id: String,
    /// signal, by name or number
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// `exec`
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// current working directory in the container
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(short, long)]
    pub user: Option<String>,
    /// additional gids
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// path to the process.json
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// set no_new_privs on the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// container id
    pub id: String,
    /// command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// select one of: table or json
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// display only container IDs
    #[arg(short, long)]
    pub quiet: bool,
}

/// `ps`
#[derive(Args, Debug)]
pub struct PsArgs {
    /// select one of: table or json
    #[arg(short, long, default_value = "table")]
    pub format: String,
    /// container id
    pub id: String,
    /// options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub ps_options: Vec<String>,
}

/// `events`
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// display the container's stats then exit
    #[arg(long)]
    pub stats: bool,
    /// set the stats collection interval, e.g. 5s
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// container id
    pub id: String,
}

/// `update`
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// path to the file containing the resources to update or '-' to read from the standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// limit memory, in bytes or with a suffix (-1: unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// limit memory and swap together (-1: unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// soft limit of memory
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// CPU shares (relative weight)
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// CPU CFS quota in microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU CFS period in microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPUs to use
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// maximum number of processes
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// container id
    pub id: String,
}
