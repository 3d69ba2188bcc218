//! The systemd driver with the systemd of this host.
//!
//! Needs root on a host that systemd has booted with pure cgroup v2, and `systemctl`; elsewhere these
//! tests do nothing. A system container is such a host: copy the test binary into one and run it there.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use sysbox_cgroups::{Cgroup, Driver, Error, Layout, Placeholder};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process_into, pause_for_ever};

const SIGKILL: i32 = 9;
const SLICE: &str = "sysboxtest-inner.slice";

/// The hierarchies, if systemd manages them.
fn host() -> Option<Layout> {
    let layout = Layout::detect().ok()?;
    let managed = layout.is_pure_v2() && Path::new("/run/systemd/system").is_dir();
    if !managed {
        eprintln!("skipped: systemd does not manage a pure cgroup v2 host here");
    }
    managed.then_some(layout)
}

/// A planned cgroup; nothing of it stays after the test.
struct Planned(Cgroup);

impl Deref for Planned {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.0
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        let _ = self.0.kill_all(SIGKILL);
        let _ = self.0.remove();
    }
}

fn plan(layout: &Layout, name: &str) -> Planned {
    let path = format!("{SLICE}:sysbox:{name}");
    Planned(Cgroup::plan_with(Driver::Systemd, layout, Some(&path), name).unwrap())
}

fn limits(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A process that is born in the cgroup, as a container's first process is.
fn born_in(cgroup: &Cgroup) -> i32 {
    let entrance = cgroup.entrance().unwrap();
    match clone_process_into(CloneFlags::NONE, entrance.unified()).unwrap() {
        Fork::Child => pause_for_ever(),
        Fork::Parent { pid, .. } => pid,
    }
}

fn systemctl(words: &[&str]) -> String {
    let output = Command::new("systemctl").args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn show(name: &str, property: &str) -> String {
    let unit = format!("sysbox-{name}.scope");
    systemctl(&["show", "--value", "--property", property, &unit])
}

fn file(cgroup: &Cgroup, name: &str) -> String {
    let path = cgroup.unified().unwrap().join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim().to_owned()
}

fn within(seconds: u64, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where the machine has the controllers in v1 hierarchies, systemd manages v2 without them.
fn has_controllers(layout: &Layout) -> bool {
    let root = layout.unified_root().unwrap();
    let has = fs::read_to_string(root.join("cgroup.controllers")).unwrap();
    ["cpu", "memory", "pids"].iter().all(|name| has.split_whitespace().any(|other| other == *name))
}

fn has_controller(cgroup: &Cgroup, name: &str) -> bool {
    file(cgroup, "cgroup.controllers").split_whitespace().any(|other| other == name)
}

#[test]
fn a_container_lives_in_a_scope() {
    let Some(layout) = host() else { return };
    let name = "life";
    let cgroup = plan(&layout, name);
    let first = limits(
        r#"{"memory": {"limit": 67108864, "reservation": 33554432}, "pids": {"limit": 50},
            "cpu": {"shares": 512, "quota": 12345, "period": 50000, "cpus": "0"}}"#,
    );
    let placeholder = cgroup.create_with(name, &first).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [placeholder.pid().unwrap()]);
    assert_eq!(show(name, "ActiveState"), "active");
    assert_eq!(show(name, "Slice"), SLICE);
    assert_eq!(show(name, "Description"), "system container life");
    assert_eq!(show(name, "Delegate"), "yes");
    assert_eq!(show(name, "MemoryMax"), "67108864");
    assert_eq!(show(name, "MemoryLow"), "33554432");
    assert_eq!(show(name, "TasksMax"), "50");
    assert_eq!(show(name, "CPUWeight"), "59");
    assert_eq!(show(name, "CPUQuotaPerSecUSec"), "250ms");
    assert_eq!(show(name, "AllowedCPUs"), "0");
    let limited = has_controllers(&layout);
    if limited {
        // Before anything is written by us: the first process finds limits whatever happens.
        assert_eq!(file(&cgroup, "memory.max"), "67108864");
        assert_eq!(file(&cgroup, "pids.max"), "50");
        assert_eq!(file(&cgroup, "cpu.max"), "12500 50000");
        cgroup.apply(&first).unwrap();
        assert_eq!(file(&cgroup, "cpu.max"), "12345 50000");
        assert_eq!(file(&cgroup, "memory.low"), "33554432");
    }
    let init = born_in(&cgroup);
    drop(placeholder);
    cgroup.delegate(1000, 1000).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [init]);

    // systemd writes what it knows again, and nobody may notice.
    systemctl(&["daemon-reload"]);
    assert_eq!(show(name, "ActiveState"), "active");
    // A delegated scope is not ended because something in it was killed for lack of memory.
    assert_eq!(show(name, "OOMPolicy"), "continue");
    if limited {
        assert_eq!(file(&cgroup, "memory.max"), "67108864");
        assert_eq!(file(&cgroup, "pids.max"), "50");
        assert!(has_controller(&cgroup, "cpu") && has_controller(&cgroup, "memory"));
    }
    assert_eq!(fs::metadata(cgroup.unified().unwrap()).unwrap().uid(), 1000);
    assert_eq!(fs::metadata(cgroup.unified().unwrap().join("cgroup.procs")).unwrap().uid(), 1000);

    let more =
        limits(r#"{"memory": {"limit": 134217728, "swap": 134217728}, "pids": {"limit": -1}}"#);
    // Without controllers systemd knows the limits, and the kernel cannot have them.
    assert_eq!(cgroup.update(&more).is_ok(), limited);
    systemctl(&["daemon-reload"]);
    if limited {
        assert_eq!(file(&cgroup, "memory.max"), "134217728");
        assert_eq!(file(&cgroup, "pids.max"), "max");
    }
    assert_eq!(show(name, "MemoryMax"), "134217728");
    assert_eq!(show(name, "TasksMax"), "infinity");

    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    cgroup.thaw().unwrap();
    assert_eq!(cgroup.stats().pids.current.is_some(), limited);

    cgroup.kill_all(SIGKILL).unwrap();
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    within(5, "systemd forgets the scope", || show(name, "LoadState") == "not-found");
}

#[test]
fn no_limit_means_none() {
    let Some(layout) = host() else { return };
    let cgroup = plan(&layout, "free");
    let placeholder = cgroup.create_with("free", &LinuxResources::default()).unwrap();
    assert_eq!(show("free", "TasksMax"), "infinity");
    assert_eq!(show("free", "MemoryMax"), "infinity");
    if has_controllers(&layout) {
        assert_eq!(file(&cgroup, "pids.max"), "max");
        assert_eq!(file(&cgroup, "memory.max"), "max");
    }
    drop(placeholder);
    cgroup.remove().unwrap();
}

#[test]
fn idle_is_a_weight_for_systemd() {
    let Some(layout) = host() else { return };
    let cgroup = plan(&layout, "idle");
    let idle = limits(r#"{"cpu": {"idle": 1}}"#);
    let _placeholder = cgroup.create_with("idle", &idle).unwrap();
    assert_eq!(show("idle", "CPUWeight"), "idle");
    if has_controllers(&layout) {
        cgroup.apply(&idle).unwrap();
        systemctl(&["daemon-reload"]);
        assert_eq!(file(&cgroup, "cpu.idle"), "1");
    }
    cgroup.kill_all(SIGKILL).unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn a_scope_without_a_container_vanishes() {
    let Some(layout) = host() else { return };
    let cgroup = plan(&layout, "empty");
    let placeholder: Placeholder = cgroup.create_with("empty", &LinuxResources::default()).unwrap();
    drop(placeholder);
    within(5, "systemd removes the empty scope", || !cgroup.exists());
    within(5, "systemd forgets the scope", || show("empty", "LoadState") == "not-found");
}

#[test]
fn the_same_name_again_at_once() {
    let Some(layout) = host() else { return };
    let cgroup = plan(&layout, "again");
    for _ in 0..20 {
        let placeholder = cgroup.create_with("again", &LinuxResources::default()).unwrap();
        born_in(&cgroup);
        drop(placeholder);
        cgroup.kill_all(SIGKILL).unwrap();
        cgroup.remove().unwrap();
    }
    // Without a removal: the end is for systemd to find.
    for _ in 0..5 {
        drop(cgroup.create_with("again", &LinuxResources::default()).unwrap());
    }
    cgroup.remove().unwrap();
}

#[test]
fn a_scope_in_use_is_refused_and_left_alone() {
    let Some(layout) = host() else { return };
    let cgroup = plan(&layout, "used");
    let _placeholder = cgroup.create_with("used", &LinuxResources::default()).unwrap();
    let again = cgroup.create_with("used", &LinuxResources::default());
    assert!(matches!(again, Err(Error::InUse { .. })), "{again:?}");
    assert_eq!(show("used", "ActiveState"), "active");
    cgroup.kill_all(SIGKILL).unwrap();
    cgroup.remove().unwrap();
}

#[test]
fn a_failed_unit_of_that_name_is_cleared_away() {
    let Some(layout) = host() else { return };
    let run = ["--quiet", "--scope", "--unit=sysbox-failed.scope"];
    let slice = format!("--slice={SLICE}");
    let status = Command::new("systemd-run")
        .args(run)
        .args([&slice, "--property=RuntimeMaxSec=200ms", "sleep", "100"])
        .status();
    assert!(!status.unwrap().success());
    within(5, "the scope fails", || show("failed", "ActiveState") == "failed");
    let cgroup = plan(&layout, "failed");
    let placeholder = cgroup.create_with("failed", &LinuxResources::default()).unwrap();
    assert_eq!(show("failed", "ActiveState"), "active");
    drop(placeholder);
    cgroup.remove().unwrap();
}

#[test]
fn what_systemd_refuses_is_told() {
    let Some(layout) = host() else { return };
    let path = format!("{SLICE}:sysbox:a b");
    let cgroup = Cgroup::plan_with(Driver::Systemd, &layout, Some(&path), "x").unwrap();
    let error = cgroup.create_with("x", &LinuxResources::default()).unwrap_err().to_string();
    assert!(error.contains("cannot start the unit sysbox-a b.scope"), "{error}");
    assert!(error.contains("InvalidArgs"), "{error}");
}
