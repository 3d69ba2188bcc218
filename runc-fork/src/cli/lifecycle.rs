//! create, start, run, delete, kill, pause, resume.

use anyhow::{Context, Result, bail, ensure};
use sysbox_kernel::ns::pidfd;
use sysbox_kernel::process::send_signal;

use super::args::{CreateArgs, Global, KillArgs, RunArgs};
use crate::run::create::Request;
use crate::run::{create, delete as run_delete, foreground, start as run_start};
use crate::spec::InitSystem;
use crate::state::{Directory, State, Status, is_alive};

/// `create`
pub fn create(global: &Global, args: &CreateArgs) -> Result<()> {
    create::create(&request(global, args)).map(drop)
}

fn request(global: &Global, args: &CreateArgs) -> Request {
    Request {
        root: global.root.clone(),
        id: args.id.clone(),
        bundle: args.bundle.clone(),
        console_socket: args.console_socket.clone(),
        pid_file: args.pid_file.clone(),
        preserve_fds: args.preserve_fds,
        systemd_cgroup: global.systemd_cgroup,
    }
}

/// `start`
pub fn start(global: &Global, id: &str) -> Result<()> {
    run_start::start(&Directory::new(&global.root, id)?)
}

/// `run`: create, start, wait, delete.
pub fn run(global: &Global, args: &RunArgs) -> Result<i32> {
    let directory = Directory::new(&global.root, &args.create.id)?;
    let state = create::create(&request(global, &args.create))?;
    let init = pidfd(state.init.pid).context("open a pidfd of init")?;
    if let Err(e) = run_start::start(&directory) {
        run_delete::delete(&directory, &state.id, true)?;
        return Err(e);
    }
    if args.detach {
        return Ok(0);
    }
    let code = foreground::wait(&init)?;
    if !args.keep {
        run_delete::delete(&directory, &state.id, true)?;
    }
    Ok(code)
}

/// `delete`
pub fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    run_delete::delete(&Directory::new(&global.root, id)?, id, force)
}

/// `kill`
pub fn kill(global: &Global, args: &KillArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let state = directory.load()?;
    let number = signal(&args.signal)?;
    let process = pidfd(state.init.pid);
    let alive = is_alive(&state.init);
    if args.all {
        // Also when init is gone: what it left behind in a shared pid namespace.
        if number == 9 {
            let _ = state.cgroup.thaw();
        }
        return Ok(state.cgroup.kill_all(number)?);
    }
    ensure!(alive, "container not running");
    let number = stop_signal(&state, number);
    let process = process.context("open a pidfd of init")?;
    send_signal(&process, number).context("signal init")?;
    if number == 9 {
        // A frozen process does not die before it is thawed.
        let _ = state.cgroup.thaw();
    }
    Ok(())
}

/// systemd takes SIGTERM as "execute yourself again"; what an engine means with it is "stop", for
/// which each init system has a signal of its own. An image that names its STOPSIGNAL is not
/// touched by this: its engine sends that one.
fn stop_signal(state: &State, number: i32) -> i32 {
    const TERM: i32 = 15;
    let init = state.annotations.get("io.sysbox.init-system");
    let init = init.and_then(|name| InitSystem::from_name(name));
    if number == TERM { init.and_then(InitSystem::stop_signal).unwrap_or(number) } else { number }
}

/// `pause`
pub fn pause(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match state.status(&directory) {
        Status::Running | Status::Created => Ok(state.cgroup.freeze()?),
        other => bail!("container not running: {}", other.as_str()),
    }
}

/// `resume`
pub fn resume(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let _lock = directory.lock()?;
    let state = directory.load()?;
    match state.status(&directory) {
        Status::Paused => Ok(state.cgroup.thaw()?),
        _ => bail!("container not paused"),
    }
}

/// A signal by number, or by name with or without SIG.
fn signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse() {
        ensure!((1..=64).contains(&number), "unknown signal {text:?}");
        return Ok(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let realtime = |base: i32, rest: &str, sign: i32| -> Option<i32> {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.get(1..)?.parse().ok()? };
        Some(base + sign * offset)
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        realtime(34, rest, 1)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        realtime(64, rest, -1)
    } else {
        format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
    };
    match number {
        Some(number) if (1..=64).contains(&number) => Ok(number),
        _ => bail!("unknown signal {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_as_runc_reads_them() {
        for (text, number) in
            [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        assert!(signal("FOO").is_err() && signal("0").is_err() && signal("RTMIN+99").is_err());
    }
}
