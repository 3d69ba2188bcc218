//! state, list, ps, events, features: what is read and not changed.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::SPEC_VERSION;
use super::args::{EventsArgs, Global, ListArgs, PsArgs};
use crate::state::{self, Directory, State, Status};

/// `state`
pub fn state(global: &Global, id: &str) -> Result<()> {
    let directory = Directory::new(&global.root, id)?;
    let state = directory.load()?;
    println!("{}", serde_json::to_string_pretty(&describe(&directory, &state))?);
    Ok(())
}

/// runc's fields: the runtime-spec's and a few of its own.
fn describe(directory: &Directory, state: &State) -> serde_json::Value {
    let status = state.status(directory);
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": if status == Status::Stopped { 0 } else { state.init.pid },
        "status": status.as_str(),
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": state.created,
        "owner": "root",
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value
}

/// `list`
pub fn list(global: &Global, args: &ListArgs) -> Result<()> {
    let mut containers = Vec::new();
    for id in state::list(&global.root)? {
        let directory = Directory::new(&global.root, &id)?;
        match directory.load() {
            Ok(state) => containers.push(describe(&directory, &state)),
            // Deleted since it was listed, or damaged: the others are listed all the same.
            Err(e) => crate::log::warn(&format!("{id}: {e:#}")),
        }
    }
    if args.quiet {
        for container in &containers {
            println!("{}", container["id"].as_str().unwrap_or_default());
        }
        return Ok(());
    }
    match args.format.as_str() {
        "json" if containers.is_empty() => println!("null"),
        "json" => println!("{}", serde_json::to_string(&containers)?),
        "table" => {
            let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
            rows.extend(containers.iter().map(|c| {
                [
                    text(&c["id"]),
                    c["pid"].to_string(),
                    text(&c["status"]),
                    text(&c["bundle"]),
                    text(&c["created"]),
                    text(&c["owner"]),
                ]
            }));
            print_table(&rows);
        }
        other => bail!("invalid format option: {other:?}"),
    }
    Ok(())
}

/// Columns as Go's tabwriter sets them for runc: at least 12 wide, padded by one.
fn print_table<const N: usize>(rows: &[[String; N]]) {
    let width =
        |column: usize| rows.iter().map(|row| row[column].len() + 1).max().unwrap_or(0).max(12);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}")).collect();
        println!("{}", line.trim_end());
    }
}

/// `ps`
pub fn ps(global: &Global, args: &PsArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let pids = directory.load()?.cgroup.pids().context("list the container's processes")?;
    match args.format.as_str() {
        "json" => println!("{}", serde_json::to_string(&pids)?),
        "table" => print_ps(&pids, &args.ps_options)?,
        other => bail!("invalid format option: {other:?}"),
    }
    Ok(())
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
    println!("{title}");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|p| p.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            println!("{line}");
        }
    }
    Ok(())
}

/// `events`
pub fn events(global: &Global, args: &EventsArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let interval = interval(&args.interval)?;
    loop {
        let state = directory.load()?;
        if state.status(&directory) == Status::Stopped {
            bail!("container with id {} is not running", args.id);
        }
        let event = json!({ "type": "stats", "id": args.id, "data": state.cgroup.stats() });
        println!("{event}");
        if args.stats {
            return Ok(());
        }
        std::thread::sleep(interval);
    }
}

/// A duration as Go writes it: `5s`, `500ms`, `1m`.
fn interval(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().with_context(|| format!("--interval: {text:?}"))?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => bail!("--interval: {text:?} has no known unit (ms, s, m)"),
    };
    if duration.is_zero() {
        bail!("duration interval must be greater than 0");
    }
    Ok(duration)
}

/// `features`
pub fn features() -> Result<()> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "poststart", "poststop"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "false"
        }
    });
    println!("{}", serde_json::to_string_pretty(&features)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        assert_eq!(interval("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(interval("250ms").unwrap(), Duration::from_millis(250));
        assert!(interval("5").is_err() && interval("0s").is_err());
    }
}
