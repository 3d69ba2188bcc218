//! Limits and device rules, on the real kernel: set, read back, and felt by a process.
//!
//! Needs root. The whole binary runs twice: in the view of the host (hybrid or pure v2), and in a
//! private mount namespace where `/sys/fs/cgroup` is pure v2.

mod common;

use std::fs;
use std::path::Path;

use common::{Process, Sandbox};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use sysbox_cgroups::{Cgroup, Error, FUSE, Stats, device_rules};

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// What each file (v1 or v2, whichever is there) says now.
fn value(cgroup: &Cgroup, v1: (&str, &str), v2: &str) -> Option<String> {
    let v1 = cgroup.v1_dir(v1.0).map(|dir| dir.join(v1.1));
    let v2 = cgroup.unified().map(|dir| dir.join(v2));
    let text = v1.into_iter().chain(v2).find_map(|path| fs::read_to_string(path).ok());
    text.map(|text| text.trim().to_owned())
}

/// Does this cgroup have the controller, in either version?
fn has(cgroup: &Cgroup, v1: &str, v2: &str) -> bool {
    let controllers = cgroup.unified().map(|dir| dir.join("cgroup.controllers"));
    let controllers = controllers.and_then(|path| fs::read_to_string(path).ok());
    cgroup.v1_dir(v1).is_some()
        || controllers.unwrap_or_default().split_whitespace().any(|name| name == v2)
}

#[test]
fn again_in_a_pure_v2_view() {
    common::again_in_a_pure_v2_view();
}

#[test]
fn a_limit_without_its_controller_is_an_error_with_its_name() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    for (v1, v2, json, field) in [
        ("memory", "memory", r#"{"memory":{"limit":67108864}}"#, "linux.resources.memory.limit"),
        ("pids", "pids", r#"{"pids":{"limit":10}}"#, "linux.resources.pids.limit"),
        ("cpu", "cpu", r#"{"cpu":{"quota":10000}}"#, "linux.resources.cpu.quota"),
        ("cpuset", "cpuset", r#"{"cpu":{"cpus":"0"}}"#, "linux.resources.cpu.cpus"),
        ("rdma", "rdma", r#"{"rdma":{"x":{"hcaHandles":3}}}"#, "linux.resources.rdma[x]"),
        ("net_cls", "", r#"{"network":{"classID":1}}"#, "linux.resources.network.classID"),
        (
            "-",
            "memory",
            r#"{"unified":{"memory.high":"1000000"}}"#,
            "linux.resources.unified[memory.high]",
        ),
    ] {
        if has(&cgroup, v1, v2) {
            continue;
        }
        let error = cgroup.apply(&resources(json)).unwrap_err();
        assert!(matches!(error, Error::NoController { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn what_docker_sends_when_nothing_is_asked_for() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    cgroup
        .apply(&resources(
            r#"{"memory":{"disableOOMKiller":false},"cpu":{"shares":0},"pids":{"limit":0},
                "blockIO":{"weight":0},"hugepageLimits":[]}"#,
        ))
        .unwrap();
}

#[test]
fn memory_goes_up_and_down_with_swap() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/m");
    if !has(&cgroup, "memory", "memory") {
        return;
    }
    let limit = || value(&cgroup, ("memory", "memory.limit_in_bytes"), "memory.max").unwrap();
    // Each step is beyond the memory plus swap of the one before, or below its memory.
    for mib in [64_u64, 512, 32, 1024] {
        let (memory, swap) = (mib << 20, (mib << 20) * 2);
        cgroup
            .apply(&resources(&format!(
                r#"{{"memory":{{"limit":{memory},"swap":{swap},"reservation":{}}}}}"#,
                memory / 2
            )))
            .unwrap();
        assert_eq!(limit(), memory.to_string());
    }
    cgroup.apply(&resources(r#"{"memory":{"limit":-1}}"#)).unwrap();
    assert!(limit() == "max" || limit().parse::<u64>().unwrap() > 1 << 60);
    let wrong = cgroup.apply(&resources(r#"{"memory":{"limit":100000000,"swap":50000000}}"#));
    assert!(wrong.unwrap_err().to_string().contains("linux.resources.memory"));
}

#[test]
fn cpu_quota_period_and_burst_in_any_order() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    if !has(&cgroup, "cpu", "cpu") {
        return;
    }
    let apply = |json: &str| cgroup.apply(&resources(json));
    apply(r#"{"cpu":{"shares":512,"quota":50000,"period":100000,"burst":20000}}"#).unwrap();
    apply(r#"{"cpu":{"quota":400000,"period":1000000,"burst":300000}}"#).unwrap();
    apply(r#"{"cpu":{"quota":2000,"period":10000,"burst":1000}}"#).unwrap();
    let quota = value(&cgroup, ("cpu", "cpu.cfs_quota_us"), "cpu.max").unwrap();
    assert!(quota == "2000" || quota == "2000 10000", "{quota}");
    apply(r#"{"cpu":{"burst":0}}"#).unwrap();
    apply(r#"{"cpu":{"quota":-1}}"#).unwrap();
    let error = apply(r#"{"cpu":{"shares":1}}"#);
    if cgroup.v1_dir("cpu").is_some() {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("nearest value that the kernel accepts is 2"), "{error}");
    }
    let error = apply(r#"{"cpu":{"period":1}}"#).unwrap_err().to_string();
    assert!(error.contains("linux.resources.cpu.period"), "{error}");
}

#[test]
fn cpuset_and_pids() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    if has(&cgroup, "cpuset", "cpuset") {
        cgroup.apply(&resources(r#"{"cpu":{"cpus":"0","mems":"0"}}"#)).unwrap();
        let cpus = value(&cgroup, ("cpuset", "cpuset.cpus"), "cpuset.cpus").unwrap();
        assert_eq!(cpus, "0");
        let error = cgroup.apply(&resources(r#"{"cpu":{"cpus":"9999"}}"#)).unwrap_err();
        assert!(error.to_string().contains("linux.resources.cpu.cpus"), "{error}");
    }
    if has(&cgroup, "pids", "pids") {
        cgroup.apply(&resources(r#"{"pids":{"limit":1}}"#)).unwrap();
        let mut process = Process::gated("sleep 0 2>/dev/null; exit 7");
        cgroup.attach(process.pid()).unwrap();
        assert_ne!(process.go(), Some(7), "a second process was made");
        cgroup.apply(&resources(r#"{"pids":{"limit":-1}}"#)).unwrap();
        let mut process = Process::gated("sleep 0; exit 7");
        cgroup.attach(process.pid()).unwrap();
        assert_eq!(process.go(), Some(7));
    }
}

#[test]
fn a_removed_cgroup_is_said_to_be_gone() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    cgroup.remove().unwrap();
    let error = cgroup.apply(&resources(r#"{"pids":{"limit":5}}"#)).unwrap_err().to_string();
    assert!(error.contains("cgroup"), "{error}");
}

#[test]
fn devices() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    let apply = |rules: Vec<LinuxDeviceCgroup>| {
        let mut resources = LinuxResources::default();
        resources.set_devices(Some(rules));
        cgroup.apply(&resources)
    };
    let opens = |script: &str| {
        let mut process = Process::gated(&format!("( {script} ) 2>/dev/null"));
        cgroup.attach(process.pid()).unwrap();
        process.go() == Some(0)
    };
    let null = "echo >/dev/null && head -c 1 /dev/zero >/dev/null";
    let kmsg = "exec </dev/kmsg";
    let nodes = tempfile::tempdir().unwrap();
    let mknod = format!("mknod {}/n b 7 99 && rm {0}/n", nodes.path().display());
    let open_fuse = "exec </dev/fuse";

    assert!(opens(null) && opens(kmsg) && opens(&mknod), "before there are rules");
    let deny: Vec<LinuxDeviceCgroup> =
        serde_json::from_str(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
    apply(device_rules(&deny, &[])).unwrap();
    assert!(opens(null));
    assert!(!opens(kmsg));
    assert!(opens(&mknod), "mknod is allowed for any device");
    if Path::new("/dev/fuse").exists() {
        assert!(!opens(open_fuse));
    }

    // An update: one more device, and again the same.
    for _ in 0..2 {
        apply(device_rules(&deny, &[FUSE, (1, 11)])).unwrap();
        assert!(opens(null) && opens(kmsg));
        if Path::new("/dev/fuse").exists() {
            assert!(opens(open_fuse));
        }
    }
    apply(device_rules(&deny, &[])).unwrap();
    assert!(opens(null) && !opens(kmsg), "and back");

    let all: Vec<LinuxDeviceCgroup> = serde_json::from_str(
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"r"}]"#,
    )
    .unwrap();
    apply(all.clone()).unwrap();
    assert!(opens(null) && !opens(kmsg), "all but one");
    apply(all[..1].to_vec()).unwrap();
    assert!(opens(null) && opens(kmsg), "privileged");
    apply(Vec::new()).unwrap();
    assert!(!opens("exec 3>/dev/zero"), "no rule allows anything");
}

#[test]
fn statistics() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/s");
    let mut process = Process::gated("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done");
    cgroup.attach(process.pid()).unwrap();
    let before = cgroup.stats();
    assert_eq!(process.go(), Some(0));
    let after = cgroup.stats();
    let total = |stats: &Stats| stats.cpu.usage.total.unwrap();
    assert!(total(&after) > total(&before) + 1_000_000, "the loop takes more than a millisecond");
    assert!(after.cpu.psi.is_some());
    if has(&cgroup, "memory", "memory") {
        assert!(after.memory.usage.limit.unwrap() > 1 << 60 && after.memory.usage.usage.is_some());
        assert!(!before.memory.raw.is_empty());
    }
    if has(&cgroup, "pids", "pids") {
        assert_eq!((before.pids.current, before.pids.limit), (Some(1), None));
    }
    if cgroup.v1_dir("cpuset").is_some() {
        assert!(!before.cpuset.cpus.is_empty());
    }
}
