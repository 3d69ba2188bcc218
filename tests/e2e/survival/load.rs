//! The long test: thirty system containers under load, and daemons that die again and again.
//!
//! Not part of the usual run, for it takes minutes: `scripts/bench-survival` runs it.

use std::fs;
use std::time::Duration;

use sysbox_tests::{BOOKWORM, BUSYBOX, Container, Running, alone, daemons, wait_until};

use super::{EACH, kill_for};

/// A reader: how long each round took, in microseconds (by a clock of hundredths of a second, the best
/// that busybox has), goes to /tmp/reads; an error ends it.
const READER: &str = "
    exec 2>/tmp/reader.err
    now() { read time rest </proc/uptime; time=${time%.*}${time#*.}; }
    while [ ! -e /tmp/stop ]; do
        now; before=$time
        grep -q MemTotal /proc/meminfo || exit 11
        grep -q 'cpu ' /proc/stat || exit 12
        cat /proc/uptime /proc/loadavg >/dev/null || exit 13
        now; echo $(((time - before) * 10000)) >>/tmp/reads
        sleep 0.02
    done; echo ok >/tmp/reader.end";

/// One that mounts, the same way.
const MOUNTER: &str = "
    exec 2>/tmp/mounter.err
    now() { read time rest </proc/uptime; time=${time%.*}${time#*.}; }
    mkdir -p /tmp/m
    while [ ! -e /tmp/stop ]; do
        now; before=$time
        mount -t proc proc /tmp/m && grep -q MemTotal /tmp/m/meminfo && umount /tmp/m || exit 14
        now; echo $(((time - before) * 10000)) >>/tmp/mounts
        sleep 0.05
    done; echo ok >/tmp/mounter.end";

/// One that runs inner containers.
const INNER: &str = "
    exec 2>/tmp/inner.err
    while [ ! -e /tmp/stop ]; do
        docker run --rm --network=none IMAGE grep -q MemTotal /proc/meminfo || exit 15
        echo x >>/tmp/runs
    done; echo ok >/tmp/inner.end";

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

/// Descriptors, mounts and resident KiB of a daemon.
fn holdings(daemon: &str) -> (usize, usize, u64) {
    let proc = format!("/proc/{}", daemons::pid_of(daemon));
    let read = |name: &str| fs::read_to_string(format!("{proc}/{name}")).expect(name);
    let resident = read("status");
    let resident = resident.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.split_whitespace().next()).expect("VmRSS");
    let descriptors = fs::read_dir(format!("{proc}/fd")).expect("descriptors").count();
    (descriptors, read("mountinfo").lines().count(), resident.parse().expect("a number"))
}

/// The middle, the hundredth longest and the longest of times in microseconds, as text.
fn spread(mut times: Vec<u64>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100] as f64 / 1000.0;
    format!(
        "{} times: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        times.len(),
        at(50),
        at(99),
        at(100)
    )
}

fn collect(systems: &[Running], file: &str) -> Vec<u64> {
    let read = |system: &Running| system.sh(&format!("cat /tmp/{file}")).ok();
    let texts: Vec<String> = systems.iter().map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .map(|line| line.parse().unwrap_or_else(|_| panic!("no time in {file}: {line:?}")))
        .collect()
}

fn stop(system: &Running, parts: &[&str]) {
    system.sh("touch /tmp/stop").ok();
    for part in parts {
        wait_until("its loops have ended", Duration::from_secs(60), || {
            system
                .sh(&format!("test -e /tmp/{part}.end"))
                .success()
                .then_some(())
                .ok_or_else(|| system.sh(&format!("cat /tmp/{part}.err; ps")).stdout)
        });
    }
    assert_eq!(system.inspect(".State.Running"), "true");
}

#[test]
#[ignore = "takes minutes; see the module's documentation"]
fn thirty_systems_under_load_outlive_their_daemons() {
    let _world = alone();
    let count = number("SYSBOX_LOAD_SYSTEMS", 30) as usize;
    let seconds = number("SYSBOX_LOAD_SECONDS", 120);
    // One in ten is a whole system with an engine inside; all of them read and mount.
    let (mut whole, mut plain) = (Vec::new(), Vec::new());
    for n in 0..count {
        if n % 10 == 0 {
            let system = Container::booted::<&str>(BOOKWORM, []);
            system.sh("docker load --input /opt/busybox.tar").ok();
            whole.push(system);
        } else {
            plain.push(Container::sleeping(["--tmpfs", "/tmp:exec"]));
        }
    }
    let daemons = ["sysbox-mgr", "sysbox-fs"];
    // Warm: what is made once is not counted as a leak.
    kill_for(Duration::from_secs(3), &EACH);
    let before = daemons.map(holdings);
    let inner = INNER.replace("IMAGE", BUSYBOX);
    for system in whole.iter().chain(&plain) {
        for script in [READER, MOUNTER] {
            system.exec(&["--detach"], ["sh", "-c", script]).ok();
        }
    }
    for system in &whole {
        system.exec(&["--detach"], ["sh", "-c", &inner]).ok();
    }
    let kills = kill_for(Duration::from_secs(seconds), &EACH);
    for system in &whole {
        stop(system, &["reader", "mounter", "inner"]);
        assert_eq!(system.sh("systemctl is-system-running").ok(), "running");
    }
    plain.iter().for_each(|system| stop(system, &["reader", "mounter"]));
    let all: Vec<Running> = whole.into_iter().chain(plain).collect();
    println!("{count} systems, {kills} kills in {seconds} s");
    println!("reads of virtualised files: {}", spread(collect(&all, "reads")));
    println!("mounts:                     {}", spread(collect(&all, "mounts")));
    for (daemon, before) in daemons.iter().zip(before) {
        let after = holdings(daemon);
        println!("{daemon}: descriptors, mounts, KiB: {before:?} before, {after:?} after");
        assert!(after.0 <= before.0 + 8, "{daemon} leaks descriptors: {before:?}, {after:?}");
        assert!(after.1 <= before.1 + 2, "{daemon} leaks mounts: {before:?}, {after:?}");
        assert!(after.2 <= before.2 + 8 * 1024, "{daemon} leaks memory: {before:?}, {after:?}");
    }
}
