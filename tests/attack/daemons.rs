//! The daemons live through whatever a container sends them, and grow by nothing.

use std::fs;
use std::time::Duration;

use sysbox_tests::{BOOKWORM, BUSYBOX, Cmd, Container, Running, World, alone, wait_until};

use crate::tool::{ATTACKER, container, judge};

/// How long the loads and the fuzzer run: seconds.
const SHORT: &str = "8";

/// A daemon as the kernel sees it.
#[derive(Debug, PartialEq, Eq)]
struct Daemon {
    name: &'static str,
    pid: String,
    descriptors: usize,
    resident_kib: u64,
}

impl Daemon {
    fn look(name: &'static str) -> Self {
        let file = World::current().dir.join("pid").join(name);
        let pid = fs::read_to_string(file).expect("the daemon's pid").trim().to_owned();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self { name, pid, descriptors, resident_kib: resident.expect("a number") }
    }

    fn both() -> [Self; 2] {
        ["sysbox-mgr", "sysbox-fs"].map(Self::look)
    }
}

/// The same processes, with no more descriptors and hardly more memory than before.
#[track_caller]
fn assert_healthy(before: &[Daemon; 2]) {
    wait_until("the daemons hold no more than before", Duration::from_secs(40), || {
        let now = Daemon::both();
        for (old, new) in before.iter().zip(&now) {
            assert_eq!(old.pid, new.pid, "{} was restarted", old.name);
            if new.descriptors > old.descriptors + 2 || new.resident_kib > old.resident_kib + 20_000
            {
                return Err(format!("{old:?} became {new:?}"));
            }
        }
        Ok(())
    });
    let served = container().sh("mount -t proc p /mnt && head -n 1 /mnt/meminfo && umount /mnt");
    assert!(served.ok().starts_with("MemTotal"), "the broker still serves");
}

/// What is kept for the first container and thread pools that have grown once.
fn warm_up() -> [Daemon; 2] {
    judge(container().run([ATTACKER, "load", "1"]), 1);
    Daemon::both()
}

#[test]
fn malformed_requests_do_nothing() {
    let _world = alone();
    let before = warm_up();
    judge(container().run([ATTACKER, "malformed"]), 300);
    assert_healthy(&before);
}

#[test]
fn random_calls_do_nothing() {
    let _world = alone();
    let before = warm_up();
    let seed = std::env::var("SYSBOX_FUZZ_SEED").unwrap_or_else(|_| "20261123".into());
    let time = std::env::var("SYSBOX_FUZZ_SECONDS").unwrap_or_else(|_| SHORT.into());
    println!("seed {seed}");
    judge(container().run([ATTACKER, "fuzz", &seed, &time]), 3);
    assert_healthy(&before);
}

/// How much of it, by `SYSBOX_LOAD`.
struct Load {
    containers: usize,
    seconds: u64,
    /// Containers of an inner engine meanwhile.
    inner: usize,
}

impl Load {
    fn wanted() -> Self {
        match std::env::var("SYSBOX_LOAD").as_deref() {
            Ok("full") => Self { containers: 8, seconds: 60, inner: 50 },
            _ => Self { containers: 4, seconds: 8, inner: 4 },
        }
    }
}

/// Honest mounts by two processes in each of several containers, with signals on the way as Go's
/// scheduler sends them; callers that are killed in the middle; an inner engine beside.
#[test]
fn many_containers_at_once() {
    let _world = alone();
    let wanted = Load::wanted();
    let engine = Container::booted::<&str>(BOOKWORM, []);
    engine.sh("docker load --quiet --input /opt/busybox.tar").ok();
    let before = warm_up();
    let containers: Vec<Running> =
        (0..wanted.containers).map(|_| container().start(["sleep", "1000"])).collect();
    let seconds = wanted.seconds.to_string();
    let patience = Duration::from_secs(60 + 2 * wanted.seconds);
    std::thread::scope(|scope| {
        let loads: Vec<_> = containers
            .iter()
            .flat_map(|running| [running, running])
            .map(|running| {
                let load = Cmd::docker(["exec", &running.name, ATTACKER, "load", &seconds]);
                scope.spawn(move || judge(load.patience(patience).run(), 1))
            })
            .collect();
        let engine = scope.spawn(|| {
            for number in 0..wanted.inner {
                let said = engine.sh(&format!("docker run --rm {BUSYBOX} echo {number}")).ok();
                assert_eq!(said, number.to_string());
            }
        });
        // One more, whose callers die.
        let dying = container().start(["sleep", "1000"]);
        for _ in 0..wanted.seconds {
            let script = format!("timeout -s KILL 0.3 {ATTACKER} load 5; true");
            dying.sh(&script).ok();
        }
        for load in loads {
            load.join().expect("a load without a wrong result");
        }
        engine.join().expect("an engine that runs its containers");
    });
    for running in &containers {
        let left = running.sh("grep -c /tmp/load /proc/self/mountinfo || true").ok();
        assert_eq!(left.trim(), "0", "mounts are left");
    }
    drop(containers);
    assert_healthy(&before);
}
