//! `spec`: a `config.json` to begin with, as runc writes it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::SPEC_VERSION;

/// create a new specification file
#[derive(Args, Debug)]
pub struct SpecArgs {
    /// path to the root of the bundle directory
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
}

/// Runs the command.
pub fn run(args: &SpecArgs) -> Result<()> {
    let mut spec = example();
    if cgroup_v1()
        && let Some(list) = spec["linux"]["namespaces"].as_array_mut()
    {
        list.retain(|namespace| namespace["type"] != "cgroup");
    }
    if args.rootless {
        make_rootless(&mut spec);
    }
    let path = args.bundle.clone().unwrap_or_default().join("config.json");
    // As runc: an existing file is the user's work.
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("make {} (remove an existing one first)", path.display()))?;
    writeln!(file, "{}", serde_json::to_string_pretty(&spec)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Whether controllers are in v1 hierarchies: runc's example then has no cgroup namespace.
fn cgroup_v1() -> bool {
    sysbox_cgroups::Layout::detect().is_ok_and(|layout| !layout.is_pure_v2())
}

/// runc's example: a shell in `rootfs`, read-only, with few capabilities.
fn example() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm"
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm",
                &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/proc/scsi"
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
            ]
        }
    })
}

/// What a user without root can do: a user namespace of one id, the host's network, no limits,
/// and /sys bound from the host.
fn make_rootless(spec: &mut Value) {
    let linux = &mut spec["linux"];
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys", "options": options
            });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| !o.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_specs() {
        let mut spec = example();
        serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).unwrap();
        make_rootless(&mut spec);
        serde_json::from_value::<oci_spec::runtime::Spec>(spec.clone()).unwrap();
        assert!(!spec.to_string().contains("gid=5"));
        assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    }

    #[test]
    fn an_existing_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let args = SpecArgs { bundle: Some(dir.path().into()), rootless: false };
        run(&args).unwrap();
        assert!(run(&args).is_err());
    }
}
