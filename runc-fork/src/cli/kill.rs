//! `kill`: a signal to init, or with `--all` to every process.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sysbox_kernel::ns::pidfd;
use sysbox_kernel::process::send_signal;

use super::Global;
use crate::spec::InitSystem;
use crate::state::{Directory, State, is_alive};

/// send the specified signal (default: SIGTERM) to the container's init process
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

/// Runs the command.
pub fn run(global: &Global, args: &KillArgs) -> Result<()> {
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
        return if number == 0 { Ok(()) } else { Ok(state.cgroup.kill_all(number)?) };
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
    let noted = || state.annotations.get("io.sysbox.init-system");
    let init = state.init_system.as_ref().or_else(noted);
    let init = init.and_then(|name| InitSystem::from_name(name));
    if number == TERM { init.and_then(InitSystem::stop_signal).unwrap_or(number) } else { number }
}

/// A signal by number, or by name with or without SIG.
fn signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse() {
        // 0 only asks whether there is somebody to signal, kill(2).
        ensure!((0..=64).contains(&number), "unknown signal {text:?}");
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
        assert!(signal("FOO").is_err() && signal("65").is_err() && signal("RTMIN+99").is_err());
    }
}
