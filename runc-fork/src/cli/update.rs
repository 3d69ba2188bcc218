//! `update`: other limits for a running container.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use oci_spec::runtime as oci;
use serde_json::{Map, Value, json};

use super::Global;
use crate::log;
use crate::run::rdt;
use crate::state::{Directory, Status};

/// update container resource constraints
#[derive(Args, Debug, Default)]
#[command(allow_negative_numbers = true)]
pub struct UpdateArgs {
    /// path to the file containing the resources to update or '-' to read from the standard input
    #[arg(short, long, allow_hyphen_values = true)]
    pub resources: Option<PathBuf>,
    /// block I/O weight, 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CPU CFS period in microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU CFS quota in microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU CFS burst in microseconds
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// CPU shares (relative weight)
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// CPU realtime period in microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// CPU realtime limit in microseconds
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// (obsoleted; do not use) kernel memory limit
    #[arg(long, allow_hyphen_values = true, hide = true)]
    pub kernel_memory: Option<String>,
    /// (obsoleted; do not use) kernel memory limit for TCP buffers
    #[arg(long, allow_hyphen_values = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// limit memory, in bytes or with a suffix (-1: unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// soft limit of memory
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// limit memory and swap together (-1: unlimited)
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// maximum number of processes
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// line of Intel RDT for the L3 caches, such as L3:0=7f0;1=1f
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// line of Intel RDT for memory bandwidth, such as MB:0=20;1=70
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
    /// container id
    pub id: String,
}

/// Runs the command.
pub fn run(global: &Global, args: &UpdateArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let resources = resources(args)?;
    if args.kernel_memory.is_some() || args.kernel_memory_tcp.is_some() {
        log::warn("Kernel memory settings are ignored and will be removed");
    }
    let _lock = directory.lock()?;
    let state = directory.load()?;
    if state.status(&directory) == Status::Stopped {
        bail!("container not running");
    }
    state.cgroup.update(&resources).context("set the limits")?;
    let schema = |given: &Option<String>| given.clone().unwrap_or_default();
    let (l3, memory) = (schema(&args.l3_cache_schema), schema(&args.mem_bw_schema));
    rdt::update(&directory, &state, &l3, &memory)
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
        let mut resources: oci::LinuxResources = serde_json::from_str(&text)
            .with_context(|| format!("parse the resources of {}", path.display()))?;
        // As runc, which can't change them either. containerd's CRI plugin sends back what the spec
        // listed, and not what every container may use besides.
        resources.set_devices(None);
        return Ok(resources);
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
    // As runc: without a limit of memory, memory and swap together have none either.
    if memory.get("limit") == Some(&json!(-1)) && !memory.contains_key("swap") {
        memory.insert("swap".into(), json!(-1));
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
    set("burst", args.cpu_burst.map(Value::from));
    set("idle", args.cpu_idle.map(Value::from));
    set("realtimePeriod", args.cpu_rt_period.map(Value::from));
    set("realtimeRuntime", args.cpu_rt_runtime.map(Value::from));
    set("cpus", args.cpuset_cpus.clone().map(Value::from));
    set("mems", args.cpuset_mems.clone().map(Value::from));
    let mut resources = json!({ "memory": memory, "cpu": cpu });
    if let Some(weight) = args.blkio_weight {
        resources["blockIO"] = json!({ "weight": weight });
    }
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

    #[test]
    fn rules_of_devices_are_not_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            r#"{ "devices": [{ "allow": false, "access": "rwm" }], "pids": { "limit": 7 } }"#;
        std::fs::write(&file, text).unwrap();
        let args = UpdateArgs { resources: Some(file.path().into()), ..UpdateArgs::default() };
        let resources = resources(&args).unwrap();
        assert_eq!(resources.devices(), &None);
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 7);
    }

    #[test]
    fn flags_become_resources() {
        let args = UpdateArgs {
            memory: Some("-1".into()),
            cpu_burst: Some(5),
            cpu_idle: Some(1),
            blkio_weight: Some(100),
            ..UpdateArgs::default()
        };
        let resources = from_flags(&args).unwrap();
        assert_eq!(resources["memory"], json!({ "limit": -1, "swap": -1 }));
        assert_eq!(resources["cpu"], json!({ "burst": 5, "idle": 1 }));
        assert_eq!(resources["blockIO"]["weight"], 100);
    }
}
