//! The systemd driver on a host with controllers in cgroup v1. Where systemd has booted that, with systemd;
//! elsewhere beside one that is played: in a mount namespace of its own the test listens where systemd does,
//! and makes scopes as that would in the hierarchies that it knows.
//!
//! Needs root and a host with v1 hierarchies, systemd's among them; elsewhere it does nothing.

#[path = "common/fake_systemd.rs"]
mod fake_systemd;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_systemd::FakeSystemd;
use oci_spec::runtime::LinuxResources;
use sysbox_cgroups::{Cgroup, Driver, Error, Layout, device_rules};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process_into, pause_for_ever};

const MARK: &str = "SYSBOX_CG_TEST_FAKE_SYSTEMD";
const SIGKILL: i32 = 9;

/// What the played systemd keeps scopes in.
const KNOWN: [&str; 5] = ["name=systemd", "cpu", "memory", "pids", "devices"];

#[test]
fn on_a_hybrid_host() {
    let layout = Layout::detect().unwrap();
    let names: Vec<_> = layout.v1_controllers().map(|(name, _)| name.to_owned()).collect();
    let has = |wanted: &&str| names.iter().any(|name| name == wanted);
    if layout.unified_root().is_none() || !KNOWN.iter().all(has) {
        eprintln!("skipped: this host has no controllers in cgroup v1, or no hierarchy of systemd");
        return;
    }
    let booted = fs::read_to_string("/proc/1/comm").is_ok_and(|name| name == "systemd\n");
    let played = std::env::var_os(MARK).is_some();
    if !booted && !played {
        let script = "mount --make-rprivate / && mkdir -p /run/systemd && \
                      mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && exec \"$0\"";
        let status = Command::new("timeout")
            .args(["120", "unshare", "-m", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env(MARK, "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let host = Host::new(layout, played);
    a_container_lives_in_all_hierarchies(&host);
    what_is_in_use_is_left_alone(&host);
}

/// A slice for the test, and what is in it.
struct Host {
    layout: Layout,
    slice: String,
    /// Unless it is the real one.
    fake: Option<FakeSystemd>,
}

impl Host {
    fn new(layout: Layout, played: bool) -> Host {
        let slice = format!("sysboxhybrid{}.slice", std::process::id());
        let known = |name: &str| KNOWN.contains(&name);
        let v1 = layout.v1_controllers().filter(|(name, _)| known(name)).map(|(_, root)| root);
        let roots = layout.unified_root().into_iter().chain(v1).map(Path::to_owned).collect();
        Host { fake: played.then(|| FakeSystemd::start(roots)), slice, layout }
    }

    /// The real systemd writes what it knows again.
    fn reload(&self) {
        if self.fake.is_none() {
            let status = Command::new("systemctl").arg("daemon-reload").status().unwrap();
            assert!(status.success());
        }
    }

    fn plan(&self, name: &str) -> Cgroup {
        let path = format!("{}:sysbox:{name}", self.slice);
        Cgroup::plan_with(Driver::Systemd, &self.layout, Some(&path), name).unwrap()
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.layout.mounts().iter().map(|mount| &mount.root)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.fake.is_none() {
            let _ = Command::new("systemctl").args(["stop", &self.slice]).status();
        }
        for root in self.roots() {
            let _ = fs::remove_dir(root.join(&self.slice));
        }
    }
}

fn limits(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A process that is born in the cgroup, as a container's first process is.
fn born_in(cgroup: &Cgroup) -> i32 {
    let entrance = cgroup.entrance().unwrap();
    match clone_process_into(CloneFlags::NONE, entrance.unified()).unwrap() {
        Fork::Child => {
            let _ = entrance.join_v1();
            pause_for_ever()
        }
        Fork::Parent { pid, .. } => pid,
    }
}

fn read(cgroup: &Cgroup, controller: &str, file: &str) -> String {
    let path = cgroup.v1_dir(controller).unwrap().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_owned()
}

#[track_caller]
fn limits_hold(cgroup: &Cgroup, memory: &str, shares: &str, quota: &str, pids: &str) {
    assert_eq!(read(cgroup, "memory", "memory.limit_in_bytes"), memory);
    assert_eq!(read(cgroup, "cpu", "cpu.shares"), shares);
    assert_eq!(read(cgroup, "cpu", "cpu.cfs_quota_us"), quota);
    assert_eq!(read(cgroup, "cpu", "cpu.cfs_period_us"), "50000");
    let devices = read(cgroup, "devices", "devices.list");
    for entry in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rwm"] {
        assert!(devices.lines().any(|line| line == entry), "{entry} of {devices}");
    }
    assert!(!devices.contains("a *:*") && !devices.contains("c *:* r"), "{devices}");
    assert_eq!(read(cgroup, "pids", "pids.max"), pids);
}

fn members(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn a_container_lives_in_all_hierarchies(host: &Host) {
    let cgroup = host.plan("life");
    let mut first = limits(
        r#"{"memory": {"limit": 67108864}, "pids": {"limit": 50},
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0"}}"#,
    );
    first.set_devices(Some(device_rules(&[], &[])));
    let placeholder = cgroup.create_with("life", &first).unwrap();
    for hierarchy in cgroup.hierarchies() {
        assert!(hierarchy.dir.is_dir(), "{hierarchy:?}");
    }
    assert_eq!(cgroup.pids().unwrap(), [placeholder.pid().unwrap()]);
    if let Some(systemd) = &host.fake {
        let told = systemd.last_call();
        for property in ["MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax", "char-pts"] {
            assert!(told.says(property), "{property}");
        }
        // Names that systemd would convert to values of its own, and what would allow all devices.
        assert!(!told.says("MemoryMax") && !told.says("CPUWeight"));
        assert!(told.says("DevicePolicy") && told.says("strict") && told.says("/dev/char/1:3"));
    } else {
        // Before anything is written by us.
        limits_hold(&cgroup, "67108864", "512", "20000", "50");
    }

    cgroup.apply(&first).unwrap();
    limits_hold(&cgroup, "67108864", "512", "20000", "50");
    assert_eq!(read(&cgroup, "cpuset", "cpuset.cpus"), "0");
    let init = born_in(&cgroup);
    drop(placeholder);
    cgroup.delegate(1000, 1000).unwrap();
    for hierarchy in cgroup.hierarchies() {
        fake_systemd::until("init is in", || members(&hierarchy.dir) == [init]);
        let owner = fs::metadata(&hierarchy.dir).unwrap().uid();
        assert_eq!(owner == 1000, hierarchy.is_unified(), "{hierarchy:?}");
    }

    host.reload();
    limits_hold(&cgroup, "67108864", "512", "20000", "50");

    // The period of a quota is the one that the cgroup has: 20 %.
    cgroup.update(&limits(r#"{"memory": {"limit": 33554432}, "cpu": {"quota": 10000}}"#)).unwrap();
    if let Some(systemd) = &host.fake {
        let told = systemd.last_call();
        assert!(told.says("MemoryLimit") && told.has_number(200_000), "{told:?}");
        // systemd forbids all devices for a moment: nobody runs then.
        assert!(told.frozen);
    }
    assert!(!cgroup.frozen().unwrap());
    limits_hold(&cgroup, "33554432", "512", "10000", "50");
    cgroup.freeze().unwrap();
    cgroup.update(&limits(r#"{"pids": {"limit": 60}}"#)).unwrap();
    assert!(cgroup.frozen().unwrap(), "what is paused stays so");
    host.reload();
    limits_hold(&cgroup, "33554432", "512", "10000", "60");
    for hierarchy in cgroup.hierarchies() {
        assert_eq!(members(&hierarchy.dir), [init], "{hierarchy:?}");
    }

    cgroup.kill_all(SIGKILL).unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    cgroup.remove().unwrap();
}

fn what_is_in_use_is_left_alone(host: &Host) {
    let cgroup = host.plan("used");
    // Of somebody else, in a hierarchy that systemd does not know.
    let taken = cgroup.v1_dir("freezer").expect("a v1 freezer").to_owned();
    fs::create_dir_all(&taken).unwrap();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(taken.join("cgroup.procs"), other.id().to_string()).unwrap();
    let error = cgroup.create_with("used", &LinuxResources::default()).unwrap_err();
    assert!(matches!(&error, Error::InUse { path } if *path == taken), "{error}");
    assert_eq!(members(&taken), [other.id() as i32]);
    for hierarchy in cgroup.hierarchies().iter().filter(|h| h.dir != taken) {
        // The scope's, which systemd removes once it sees that the placeholder has ended.
        let text = fs::read_to_string(hierarchy.dir.join("cgroup.procs")).unwrap_or_default();
        assert_eq!(text, "", "{hierarchy:?}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
}
