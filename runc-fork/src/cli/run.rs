//! `run`: create, start, wait, delete.

use anyhow::{Context, Result};
use clap::Args;
use sysbox_kernel::ns::pidfd;

use super::Global;
use super::create::CreateArgs;
use crate::run::console::Terminal;
use crate::run::{create, delete, foreground, start};
use crate::state::Directory;

/// create and run a container
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
    /// accepted for compatibility: the runtime never adopts processes of the container
    #[arg(long)]
    pub no_subreaper: bool,
}

/// Runs the command; returns the exit code of the container's program, 0 when detached.
pub fn run(global: &Global, args: &RunArgs) -> Result<i32> {
    let directory = Directory::new(&global.root, &args.create.id)?;
    let socket = args.create.console_socket.clone();
    let terminal =
        if args.detach { Terminal::Detached(socket) } else { Terminal::Foreground(socket) };
    let created = create::create(&args.create.request(global, terminal))?;
    let id = &created.state.id;
    let init = pidfd(created.state.init.pid).context("open a pidfd of init")?;
    let started = match start::start(&directory) {
        Ok(started) => started,
        Err(e) => {
            delete::delete(&directory, id, true)?;
            return Err(e);
        }
    };
    if args.detach {
        started.wait_ready();
        return Ok(0);
    }
    // Beside the program, whose end it does not outlive.
    std::thread::spawn(|| started.wait_ready());
    let code = foreground::wait(&init, created.master)?;
    if !args.keep {
        delete::delete(&directory, id, true)?;
    }
    Ok(code)
}
