//! /proc and /sys tell of the container: its limits, its uptime; in inner containers too.

use std::fs;
use std::time::{Duration, Instant};

use sysbox_tests::{
    BOOKWORM, BUSYBOX, Container, Engine, Feature, Running, World, shared, wait_until,
};

const LIMITS: [&str; 6] = ["--memory", "512m", "--memory-swap", "512m", "--cpus", "1"];

#[test]
fn memory_limit_shows() {
    let _world = shared();
    if !World::current().has_controllers("memory_limit_shows", &["memory"]) {
        return;
    }
    let container = Container::sleeping(LIMITS);
    let meminfo = container.sh("cat /proc/meminfo").ok();
    let field = |name| meminfo_kb(&meminfo, name);
    assert_eq!(field("MemTotal"), 512 * 1024);
    assert!(field("MemFree") <= 512 * 1024 && field("MemFree") > 256 * 1024, "{meminfo}");
    assert!(field("MemAvailable") <= 512 * 1024, "{meminfo}");
    assert_eq!(field("SwapTotal"), 0);
    assert_eq!(
        container.sh("cat /proc/swaps").ok().lines().count(),
        1,
        "no swap, only the heading"
    );

    // sysinfo(2), which busybox asks, tells the same.
    let free = container.sh("free -k").ok();
    let line = |name| free.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert_eq!(line("Mem:").split_whitespace().nth(1), Some("524288"), "{free}");
    assert_eq!(line("Swap:").split_whitespace().nth(1), Some("0"), "{free}");
    let uptime = container.sh("uptime").ok();
    assert!(uptime.contains("up 0 min") && uptime.contains("load average: 0.0"), "{uptime}");

    // What is used shows: 100 MB in a tmpfs.
    container
        .sh("mkdir /big && mount -t tmpfs none /big && head -c 100m /dev/zero >/big/file")
        .ok();
    let after = container.sh("cat /proc/meminfo").ok();
    let used = field("MemFree") - meminfo_kb(&after, "MemFree");
    assert!(used > 90 * 1024, "MemFree fell by {used} kB only:\n{after}");
}

#[test]
fn cpu_limit_shows() {
    let _world = shared();
    if !World::current().has_controllers("cpu_limit_shows", &["cpu"]) {
        return;
    }
    shows_one_cpu(&Container::sleeping(LIMITS), 0);
}

/// CPUs keep their numbers, so that the files agree with what only the kernel can tell.
#[test]
fn cpuset_shows_as_it_is() {
    let _world = shared();
    if !World::current().has_controllers("cpuset_shows_as_it_is", &["cpuset"]) {
        return;
    }
    if !Engine::current().has("resources::cpuset_shows_as_it_is", &[Feature::Cpuset]) {
        return;
    }
    let last = online_cpus(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap()) - 1;
    let container = Container::sleeping(["--cpuset-cpus", &last.to_string()]);
    shows_one_cpu(&container, last);
    assert_eq!(container.sh("nproc").ok(), "1");
    let allowed = container.sh("grep Cpus_allowed_list /proc/self/status | cut -f 2").ok();
    assert_eq!(allowed, last.to_string());
}

fn shows_one_cpu(container: &Running, cpu: usize) {
    let processor = container.sh("grep ^processor /proc/cpuinfo").ok();
    assert_eq!(processor.trim_end(), format!("processor\t: {cpu}"));
    for file in ["online", "present"] {
        let list = container.sh(&format!("cat /sys/devices/system/cpu/{file}")).ok();
        assert_eq!(list, cpu.to_string(), "{file}");
    }
    let stat = container.sh("cat /proc/stat").ok();
    let cpus: Vec<&str> = stat
        .lines()
        .filter(|line| line.starts_with("cpu"))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(cpus, ["cpu", &format!("cpu{cpu}")], "{stat}");
}

#[test]
fn without_limits_the_hosts_size_shows() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    let inside = container.sh("cat /proc/meminfo").ok();
    assert_eq!(meminfo_kb(&inside, "MemTotal"), meminfo_kb(&host, "MemTotal"));
    let cpus = online_cpus(&fs::read_to_string("/sys/devices/system/cpu/online").unwrap());
    let online = container.sh("cat /sys/devices/system/cpu/online").ok();
    assert_eq!(online_cpus(&online), cpus);
    let shown = container.sh("grep -c ^processor /proc/cpuinfo").ok();
    assert_eq!(shown, cpus.to_string());
}

#[test]
fn uptime_load_and_boot_time_are_the_containers() {
    let _world = shared();
    let start = Instant::now();
    let container = Container::sleeping::<&str>([]);
    let uptime: f64 = first_field(&container.sh("cat /proc/uptime").ok());
    // Uptime is printed in hundredths of a second, counted from within `docker run`.
    let alive = start.elapsed().as_secs_f64() + 0.02;
    assert!(uptime <= alive, "up for {uptime} s, but started {alive} s ago");

    let load = container.sh("cat /proc/loadavg").ok();
    assert_eq!(load.split_whitespace().count(), 5, "{load}");
    assert!(first_field(&load) < 0.5, "a sleeping container has no load: {load}");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let booted = container.sh("grep ^btime /proc/stat").ok();
    let booted: u64 = booted.strip_prefix("btime ").unwrap().parse().unwrap();
    let age = now.as_secs().abs_diff(booted);
    let now_alive = start.elapsed().as_secs();
    assert!(age <= now_alive + 2, "btime is {age} s ago, the container started {now_alive} s ago");

    // Init's start time is counted from the same moment.
    let ticks = container.sh("cut -d ' ' -f 22 /proc/1/stat").ok();
    let ticks: u64 = ticks.parse().unwrap();
    assert!(ticks <= (alive * 100.0) as u64, "init started {ticks} ticks after the container");
}

#[test]
fn cpu_time_grows_and_never_falls() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let script = "for i in 1 2 3 4 5 6 7 8; do head -n 1 /proc/stat; head -c 20m /dev/zero | md5sum \
                  >/dev/null; done";
    let lines = container.sh(script).ok();
    let samples: Vec<Vec<u64>> = lines
        .lines()
        .map(|line| line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect())
        .collect();
    for pair in samples.windows(2) {
        assert!(pair[0].iter().zip(&pair[1]).all(|(a, b)| a <= b), "a counter fell:\n{lines}");
    }
    let busy = |sample: &[u64]| sample[0] + sample[1] + sample[2];
    assert!(busy(&samples[7]) > busy(&samples[0]), "work left no trace:\n{lines}");
}

#[test]
fn inner_containers_see_the_limits_of_the_outer() {
    let _world = shared();
    let limited = World::current()
        .has_controllers("inner_containers_see_the_limits_of_the_outer", &["memory", "cpu"]);
    if !limited {
        return;
    }
    let system = Container::booted(BOOKWORM, ["--memory", "1g", "--cpus", "1"]);
    system.sh("docker load --input /opt/busybox.tar").ok();
    let inner =
        |script: &str| system.sh(&format!("docker run --rm {BUSYBOX} sh -c '{script}'")).ok();
    let meminfo = inner("cat /proc/meminfo");
    assert_eq!(meminfo_kb(&meminfo, "MemTotal"), 1024 * 1024);
    assert_eq!(inner("grep -c ^processor /proc/cpuinfo"), "1");
    assert_eq!(inner("cat /sys/devices/system/cpu/online"), "0");
    assert_eq!(inner("grep -c ^cpu /proc/stat"), "2");
}

/// The inner engine's `mount("proc")` is refused by the kernel and served by the broker: what it gets
/// must carry the virtualised files in every view.
#[test]
fn inner_containers_see_the_uptime_of_the_outer() {
    let _world = shared();
    let start = Instant::now();
    let system = Container::booted::<&str>(BOOKWORM, []);
    system.sh("docker load --input /opt/busybox.tar").ok();
    let script = "cat /proc/uptime /proc/loadavg && grep /proc/ /proc/mounts";
    let seen = system.sh(&format!("docker run --rm {BUSYBOX} sh -c '{script}'")).ok();
    let uptime = first_field(&seen);
    assert!(uptime <= start.elapsed().as_secs_f64(), "{seen}");
    assert!(uptime > 0.0, "{seen}");
    for file in ["meminfo", "cpuinfo", "stat", "loadavg"] {
        assert!(
            seen.contains(&format!("/proc/{file} fuse")),
            "/proc/{file} is the host's:\n{seen}"
        );
    }
}

#[test]
fn update_shows_at_once() {
    let _world = shared();
    if !World::current().has_controllers("update_shows_at_once", &["memory", "cpu"]) {
        return;
    }
    if !Engine::current().has("resources::update_shows_at_once", &[Feature::Update]) {
        return;
    }
    let container = Container::sleeping(LIMITS);
    container.docker(["update", "--memory", "300m", "--memory-swap", "300m"]);
    sysbox_tests::wait_until("the new limit shows", Duration::from_secs(5), || {
        let meminfo = container.sh("cat /proc/meminfo").ok();
        if meminfo_kb(&meminfo, "MemTotal") == 300 * 1024 { Ok(()) } else { Err(meminfo) }
    });
}

/// A paused container stands still in the middle of its reads, and nobody waits for it.
#[test]
fn a_paused_reader_holds_nobody_up() {
    let _world = shared();
    let readers = "for i in 1 2 3 4 5 6 7 8; do \
        (while :; do cat /proc/meminfo /proc/stat >/dev/null || exit; echo >>/rounds; done) & done; wait";
    let paused = Container::new(BUSYBOX).start(["sh", "-c", readers]);
    let rounds = || {
        let file = paused.upper_dir().join("rounds");
        fs::metadata(file).map_or(0, |metadata| metadata.len())
    };
    let wait_for_rounds = || {
        let before = rounds();
        wait_until("all readers work", Duration::from_secs(20), || {
            let now = rounds();
            if now > before + 16 { Ok(()) } else { Err(format!("{before} rounds, now {now}")) }
        });
    };
    let other = Container::sleeping::<&str>([]);
    for _ in 0..3 {
        wait_for_rounds();
        paused.docker(["pause"]);
        let files = "cat /proc/meminfo /proc/stat /proc/uptime /proc/loadavg | grep -c ^MemTotal";
        let reads = format!("for i in $(seq 50); do {files}; done | sort -u");
        assert_eq!(other.sh(&reads).ok(), "1");
        // Starting one asks the same daemon.
        assert_eq!(Container::new(BUSYBOX).sh(files).ok(), "1");
        paused.docker(["unpause"]);
    }
    wait_for_rounds();
    assert_eq!(paused.inspect(".State.Running"), "true", "no reader failed");
}

#[track_caller]
fn meminfo_kb(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
    let value = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[track_caller]
fn first_field(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).expect("a number first")
}

/// How many CPUs a list like `0-3,6` names.
fn online_cpus(list: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().expect("a CPU's number");
    list.trim()
        .split(',')
        .map(|part| part.split_once('-').map_or(1, |(a, b)| number(b) - number(a) + 1))
        .sum()
}

/// Values that change by themselves or by what other tests do.
const NOT_COMPARED: [&str; 11] = [
    "fs/aio-nr",
    "fs/dentry",
    "fs/file-nr",
    "fs/inode",
    "fs/negative-dentry",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
    "kernel/seccomp/actions_logged",
    "net/",
];

/// All that the host's files of settings say.
fn host_settings() -> std::collections::BTreeMap<String, String> {
    let mut settings = std::collections::BTreeMap::new();
    let mut open = vec![std::path::PathBuf::from("/proc/sys")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("list /proc/sys").flatten() {
            let path = entry.path();
            let name = path.strip_prefix("/proc/sys").expect("below it").display().to_string();
            if NOT_COMPARED.iter().any(|start| format!("{name}/").starts_with(start)) {
            } else if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                settings.insert(name, text);
            }
        }
    }
    settings
}

#[test]
fn settings_are_the_containers_own() {
    let _world = shared();
    let before = host_settings();
    let (one, other) = (Container::sleeping::<&str>([]), Container::sleeping::<&str>([]));
    for (name, value) in [
        ("kernel/panic", "17"),
        ("kernel/panic_on_oops", "1"),
        // The kernel's own per pid namespace from Linux 6.14 on.
        ("kernel/pid_max", "70001"),
        ("vm/overcommit_memory", "1"),
        ("vm/max_map_count", "262144"),
        ("fs/inotify/max_user_instances", "1024"),
        ("kernel/core_pattern", "|/bin/never %p"),
        // Of all network namespaces.
        ("net/core/rmem_max", "7340032"),
    ] {
        let file = format!("/proc/sys/{name}");
        one.sh(&format!("echo '{value}' >{file}")).ok();
        assert_eq!(one.sh(&format!("cat {file}")).ok(), value, "{name}");
        assert_ne!(other.sh(&format!("cat {file}")).ok(), value, "{name}: of the other container");
    }
    assert!(one.sh("echo 3 >/proc/sys/vm/overcommit_memory").fails().contains("Invalid argument"));
    assert!(one.sh("echo x >/proc/sys/kernel/panic").fails().contains("Invalid argument"));
    one.sh("echo 3 >/proc/sys/vm/drop_caches").ok();
    assert_eq!(host_settings(), before);
    let boot_id = "cat /proc/sys/kernel/random/boot_id";
    assert_ne!(one.sh(boot_id).ok(), other.sh(boot_id).ok());
    let uuid = "cat /sys/devices/virtual/dmi/id/product_uuid";
    let has_uuid = std::path::Path::new("/sys/devices/virtual/dmi/id/product_uuid").exists();
    assert!(!has_uuid || one.sh(uuid).ok() != other.sh(uuid).ok());

    // A parameter of a module, where the host has that.
    let hashsize = "/sys/module/nf_conntrack/parameters/hashsize";
    if let Ok(of_host) = fs::read_to_string(hashsize) {
        one.sh(&format!("echo 40000 >{hashsize}")).ok();
        assert_eq!(one.sh(&format!("cat {hashsize}")).ok(), "40000");
        assert_eq!(fs::read_to_string(hashsize).unwrap(), of_host);
    }

    // A switch of the machine that the kernel shows in every network namespace, also in new ones.
    let switch = "/proc/sys/net/netfilter/nf_hooks_lwtunnel";
    if std::path::Path::new(switch).exists() {
        for shell in ["sh", "unshare -n sh"] {
            let refused = one.sh(&format!("{shell} -c 'echo 1 >{switch}'")).fails();
            assert!(refused.contains("not permitted"), "{shell}: {refused}");
        }
    }

    // Another boot of the same machine.
    let id = one.sh(boot_id).ok();
    one.docker(["restart", "--time", "0"]);
    assert_ne!(one.sh(boot_id).ok(), id);
    assert_eq!(one.sh("cat /proc/sys/vm/max_map_count").ok(), "262144");
    if has_uuid {
        assert_ne!(one.sh(uuid).ok(), other.sh(uuid).ok());
    }
}

/// What an inner engine makes read-only stays so, although the files are mounts of their own.
#[test]
fn settings_in_inner_containers() {
    let _world = shared();
    let system = Container::booted::<&str>(BOOKWORM, []);
    // Nothing that a normal machine would not say.
    assert_eq!(system.sh("sysctl --all 2>&1 >/dev/null").ok(), "");
    assert_eq!(system.sh("sysctl --system 2>&1 >/dev/null").ok(), "");
    system.sh("echo 21 >/proc/sys/kernel/panic").ok();
    system.sh("docker load --input /opt/busybox.tar").ok();
    let inner = |options: &str, script: &str| {
        system.sh(&format!("docker run --rm {options} {BUSYBOX} sh -c '{script}'"))
    };
    assert_eq!(inner("", "cat /proc/sys/kernel/panic").ok(), "21");
    let refused = inner("", "echo 22 >/proc/sys/kernel/panic").fails();
    assert!(refused.contains("Read-only file system"), "{refused}");
    inner("--privileged", "echo 23 >/proc/sys/kernel/panic").ok();
    assert_eq!(system.sh("cat /proc/sys/kernel/panic").ok(), "23");
    let sysctl = "--sysctl net.core.somaxconn=99 --sysctl kernel.msgmax=9999";
    assert_eq!(inner(sysctl, "cat /proc/sys/kernel/msgmax").ok(), "9999");
}
