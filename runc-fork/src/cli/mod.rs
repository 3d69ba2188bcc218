//! The command line, runc's: parse, then one match that shows every command. Each command has a
//! file with its options and what it does; `golden.rs` holds the lines that engines really type.

mod checkpoint;
mod create;
mod delete;
mod documents;
mod events;
mod exec;
mod features;
mod go_flags;
#[cfg(test)]
mod golden;
mod help;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, FromArgMatches, Parser, Subcommand};

use crate::log;

/// Version of the runtime-spec that `config.json` is read by.
pub const SPEC_VERSION: &str = "1.3.0";

/// Commit that the program was built from, where the build told it.
const COMMIT: &str = match option_env!("SYSBOX_COMMIT") {
    Some(commit) => commit,
    None => concat!("v", env!("CARGO_PKG_VERSION")),
};

/// Open Container Initiative runtime for system containers
#[derive(Debug, Parser)]
#[command(name = "sysbox-runc", disable_version_flag = true)]
pub struct Arguments {
    /// Options before the command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that stand before the command.
#[derive(Args, Debug)]
pub struct Global {
    /// root directory for storage of container state
    #[arg(long, default_value = crate::state::DEFAULT_ROOT)]
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
    #[arg(long)]
    pub rootless: Option<String>,
    /// accepted for compatibility: containers are not checkpointed
    #[arg(long, hide = true)]
    pub criu: Option<PathBuf>,
    /// print the version
    #[arg(short, long)]
    pub version: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// checkpoint a running container (not supported)
    Checkpoint(checkpoint::CheckpointArgs),
    /// create a container
    Create(create::CreateArgs),
    /// delete any resources held by the container, often used with detached containers
    Delete(delete::DeleteArgs),
    /// display container events such as OOM notifications, and cpu, memory and I/O usage statistics
    Events(events::EventsArgs),
    /// write the manual pages and shell completions of these definitions
    #[command(hide = true)]
    Documents(documents::DocumentsArgs),
    /// execute new process inside the container
    Exec(exec::ExecArgs),
    /// show the enabled features
    Features,
    /// send the specified signal (default: SIGTERM) to the container's init process
    Kill(kill::KillArgs),
    /// lists containers started with the given root
    List(list::ListArgs),
    /// suspend all processes inside the container
    Pause(pause::PauseArgs),
    /// display the processes running inside a container
    Ps(ps::PsArgs),
    /// restore a container from a previous checkpoint (not supported)
    Restore(checkpoint::CheckpointArgs),
    /// resume all processes that have been previously paused
    Resume(pause::PauseArgs),
    /// create and run a container
    Run(run::RunArgs),
    /// create a new specification file
    Spec(spec::SpecArgs),
    /// executes the user defined process in a created container
    Start(start::StartArgs),
    /// output the state of a container
    State(state::StateArgs),
    /// update container resource constraints
    Update(update::UpdateArgs),
}

/// Parses the arguments, runs the command, reports an error as runc does.
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(e) => return usage(&e),
    };
    if arguments.global.version {
        let version = env!("CARGO_PKG_VERSION");
        println!("sysbox-runc version {version}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}");
        return ExitCode::SUCCESS;
    }
    let Some(command) = &arguments.command else {
        let _ = help::command().print_help();
        return ExitCode::SUCCESS;
    };
    let checked = preserved(command)
        .and_then(|()| crate::run::sealed::run_from_copy())
        .and_then(|()| begin(arguments.global));
    match checked.and_then(|global| run(&global, command)) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(e) => {
            // As runc: 255 cannot be mistaken for the exit code of most programs.
            let exec = matches!(command, Command::Exec(_));
            let prefix = match command {
                Command::Exec(_) => "exec failed: ",
                Command::Run(_) => "sysbox-runc run failed: ",
                _ => "",
            };
            log::error(&format!("{prefix}{}", log::chain(&e)));
            ExitCode::from(if exec { 255 } else { 1 })
        }
    }
}

/// Parses a command line, the program's name first; Go's spellings of flags are understood.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut command = help::command();
    let words = go_flags::normalise(&command, words.into_iter().collect());
    let mut matches = command.try_get_matches_from_mut(words)?;
    Arguments::from_arg_matches_mut(&mut matches)
}

/// Help goes to the standard output; a wrong line ends with runc's exit codes, 1, and 3 for an
/// unknown command.
fn usage(error: &clap::Error) -> ExitCode {
    match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(name)) => {
            eprintln!("No help topic for '{name}'\n\n{error}");
        }
        _ => drop(error.print()),
    }
    ExitCode::from(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::InvalidSubcommand => 3,
        _ => 1,
    })
}

/// Checks that the descriptors of `--preserve-fds` are there, before any of our own takes their place.
fn preserved(command: &Command) -> Result<()> {
    let count = match command {
        Command::Create(args) => args.preserve_fds,
        Command::Run(args) => args.create.preserve_fds,
        Command::Exec(args) => args.preserve_fds,
        _ => 0,
    };
    let first = 3 + if count > 0 { listen_fds() } else { 0 };
    for index in 0..count {
        let path = format!("/proc/self/fd/{}", first + index);
        if std::fs::symlink_metadata(&path).is_err() {
            bail!("please check that preserved-fd {index} (of {count}) is present");
        }
    }
    Ok(())
}

/// Opens the log, and makes `--root` absolute: it is handed to the manager.
fn begin(mut global: Global) -> Result<Global> {
    let json = match global.log_format.as_str() {
        "text" => false,
        "json" => true,
        other => bail!("invalid log-format: {other:?} (text or json)"),
    };
    log::init(global.log.as_deref(), json, global.debug)?;
    global.root = std::path::absolute(&global.root).context("--root")?;
    Ok(global)
}

fn run(global: &Global, command: &Command) -> Result<i32> {
    match command {
        Command::Checkpoint(_) => checkpoint::run("checkpoint").map(|()| 0),
        Command::Create(args) => create::run(global, args).map(|()| 0),
        Command::Delete(args) => delete::run(global, args).map(|()| 0),
        Command::Documents(args) => documents::run(args).map(|()| 0),
        Command::Events(args) => events::run(global, args).map(|()| 0),
        Command::Exec(args) => exec::run(global, args),
        Command::Features => features::run().map(|()| 0),
        Command::Kill(args) => kill::run(global, args).map(|()| 0),
        Command::List(args) => list::run(global, args).map(|()| 0),
        Command::Pause(args) => pause::pause(global, args).map(|()| 0),
        Command::Ps(args) => ps::run(global, args).map(|()| 0),
        Command::Restore(_) => checkpoint::run("restore").map(|()| 0),
        Command::Resume(args) => pause::resume(global, args).map(|()| 0),
        Command::Run(args) => run::run(global, args),
        Command::Spec(args) => spec::run(args).map(|()| 0),
        Command::Start(args) => start::run(global, args).map(|()| 0),
        Command::State(args) => state::run(global, args).map(|()| 0),
        Command::Update(args) => update::run(global, args).map(|()| 0),
    }
}

/// Prints a line; a reader that has gone away is an error like any other, not a panic.
fn say(line: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("write to the standard output")
}

/// Sockets that systemd handed to the runtime for the container's process (sd_listen_fds(3)):
/// they come right after the standard streams.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") == Some(std::process::id()) {
        number("LISTEN_FDS").unwrap_or(0)
    } else {
        0
    }
}
