//! update

use std::io::Read;

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use serde_json::{Map, Value, json};

use super::args::{Global, UpdateArgs};
use crate::state::{Directory, Status};

/// `update`
pub fn update(global: &Global, args: &UpdateArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let resources = resources(args)?;
    let _lock = directory.lock()?;
    let state = directory.load()?;
    if state.status(&directory) == Status::Stopped {
        bail!("container not running");
    }
    state.cgroup.apply(&resources).context("set the limits")
}

fn resources(args: &UpdateArgs) -> Result<oci::LinuxResources> {
    if let Some(path) = &args.resources {
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).context("read the resources from stdin")?;
        } else {
            text = std::fs::read_to_string(path)
                .with_context(|| format!("read {}", path.display()))?;
        }
        return serde_json::from_str(&text)
            .with_context(|| format!("parse the resources of {}", path.display()));
    }
    Ok(serde_json::from_value(from_flags(args)?)?)
}

/// The flags in the form of the runtime-spec.
fn from_flags(args: &UpdateArgs) -> Result<Value> {
    let mut memory = Map::new();
    let sizes = [
        ("limit", &args.memory),
        ("swap", &args.memory_swap),
        ("reservation", &args.memory_reservation),
    ];
    for (field, text) in sizes {
        if let Some(text) = text {
            memory.insert(field.into(), json!(bytes(text)?));
        }
    }
    let mut cpu = Map::new();
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(field.into(), value);
        }
    };
    set("shares", args.cpu_share.map(Value::from));
    set("quota", args.cpu_quota.map(Value::from));
    set("period", args.cpu_period.map(Value::from));
    set("cpus", args.cpuset_cpus.clone().map(Value::from));
    set("mems", args.cpuset_mems.clone().map(Value::from));
    let mut resources = json!({ "memory": memory, "cpu": cpu });
    if let Some(limit) = args.pids_limit {
        resources["pids"] = json!({ "limit": limit });
    }
    Ok(resources)
}

/// A size with Docker's suffixes (b, k, m, g, t; powers of 1024); -1 is unlimited.
fn bytes(text: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match lower.chars().last() {
        Some('k') => (&lower[..lower.len() - 1], 10),
        Some('m') => (&lower[..lower.len() - 1], 20),
        Some('g') => (&lower[..lower.len() - 1], 30),
        Some('t') => (&lower[..lower.len() - 1], 40),
        _ => (lower, 0),
    };
    let value: i64 = number.parse().with_context(|| format!("invalid size {text:?}"))?;
    value.checked_mul(1 << shift).with_context(|| format!("the size {text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, value) in
            [("-1", -1), ("512M", 512 << 20), ("1g", 1 << 30), ("10", 10), ("1kb", 1024)]
        {
            assert_eq!(bytes(text).unwrap(), value, "{text}");
        }
        assert!(bytes("x").is_err());
    }
}
