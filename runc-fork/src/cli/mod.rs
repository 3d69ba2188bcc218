//! The command line, runc's: parse, then one match that shows every command.

mod args;
mod exec;
mod inspect;
mod lifecycle;
mod update;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

pub use args::{Arguments, Command, Global};

use crate::log;

/// Version of the runtime-spec that `config.json` is read by.
pub const SPEC_VERSION: &str = "1.2.0";

/// Parses the arguments, runs the command, reports an error as runc does.
pub fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|a| a == "--version" || a == "-v") {
        println!("sysbox-runc version {}\nspec: {SPEC_VERSION}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let global = &arguments.global;
    if let Err(e) = log::init(global.log.as_deref(), global.log_format == "json", global.debug) {
        eprintln!("sysbox-runc: {e:#}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(e) => {
            log::error(&format!("{e:#}"));
            // As runc: 255 cannot be mistaken for the exit code of most programs.
            let exec = matches!(arguments.command, Command::Exec(_));
            ExitCode::from(if exec { 255 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> Result<i32> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Create(args) => lifecycle::create(global, args).map(|()| 0),
        Command::Start { id } => lifecycle::start(global, id).map(|()| 0),
        Command::Run(args) => lifecycle::run(global, args),
        Command::Delete { force, id } => lifecycle::delete(global, id, *force).map(|()| 0),
        Command::Kill(args) => lifecycle::kill(global, args).map(|()| 0),
        Command::Pause { id } => lifecycle::pause(global, id).map(|()| 0),
        Command::Resume { id } => lifecycle::resume(global, id).map(|()| 0),
        Command::Exec(args) => exec::exec(global, args),
        Command::State { id } => inspect::state(global, id).map(|()| 0),
        Command::List(args) => inspect::list(global, args).map(|()| 0),
        Command::Ps(args) => inspect::ps(global, args).map(|()| 0),
        Command::Events(args) => inspect::events(global, args).map(|()| 0),
        Command::Update(args) => update::update(global, args).map(|()| 0),
        Command::Features => inspect::features().map(|()| 0),
    }
}
