//! `ps`: the processes of a container, by ps(1) or as a list of pids.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use sysbox_kernel::ns::{LinkNameSpaceType, move_into_link_name_space};

use super::Global;
use crate::log;
use crate::run::process::become_root_inside;
use crate::state::{Directory, is_alive};

/// display the processes running inside a container
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

/// Runs the command.
pub fn run(global: &Global, args: &PsArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let state = directory.load()?;
    let pids = state.cgroup.pids().context("list the container's processes")?;
    match args.format.as_str() {
        "json" => super::say(serde_json::to_string(&pids)?)?,
        "table" => {
            if is_alive(&state.init)
                && let Err(e) = see_ids_inside(state.init.pid)
            {
                log::debug(&format!("ps shows the host's ids: {e}"));
            }
            print_ps(&pids, &args.ps_options)?;
        }
        other => bail!("invalid format option: {other:?}"),
    }
    Ok(())
}

/// Becomes root of the container's user namespace: ps(1) then shows the ids that the processes have
/// inside, and root's as its own.
fn see_ids_inside(init: i32) -> Result<()> {
    let namespace = File::open(format!("/proc/{init}/ns/user"))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))?;
    become_root_inside()
}

fn print_ps(pids: &[i32], options: &[String]) -> Result<()> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output = Command::new("ps").args(options).output().context("run ps")?;
    if !output.status.success() {
        bail!("ps {}: {}", options.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_whitespace()
        .position(|word| word == "PID")
        .context("couldn't find PID field in ps output")?;
    super::say(title)?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            super::say(line)?;
        }
    }
    Ok(())
}
