//! Limits hold, and nobody inside can lift them.

use std::fs;
use std::time::Duration;

use sysbox_tests::{
    BOOKWORM, BUSYBOX, Container, Engine, Feature, Running, TRIXIE, World, cannot_run, shared,
    wait_until,
};

#[test]
fn memory_limit_kills() {
    let _world = shared();
    if !World::current().has_controllers("memory_limit_kills", &["memory"]) {
        return;
    }
    let greedy = Container::new(BUSYBOX)
        .args(["--memory", "64m", "--memory-swap", "64m"])
        // tail keeps the one endless line in memory.
        .start(["sh", "-c", "head -c 500m /dev/zero | tail; exit $?"]);
    assert_eq!(greedy.wait(), "137");
    // conmon 2.1 and ctr don't tell, with runc neither.
    if Engine::current() == Engine::Docker {
        assert_eq!(greedy.inspect(".State.OOMKilled"), "true");
    }
}

#[test]
fn cpu_limit_slows() {
    let _world = shared();
    if !World::current().has_controllers("cpu_limit_slows", &["cpu"]) {
        return;
    }
    let container = Container::sleeping(["--cpus", "0.3"]);
    // Two loops for three seconds; `times` then prints the CPU time of the shell and its children.
    let now = "cut -d ' ' -f 1 /proc/uptime";
    let script = format!(
        "{now}; timeout 3 sh -c 'while :; do :; done' & timeout 3 sh -c 'while :; do :; done'; \
         wait; {now}; times"
    );
    let printed = container.sh(&script).stdout;
    let lines: Vec<&str> = printed.lines().collect();
    let at = |line: usize| lines[line].parse::<f64>().unwrap_or_else(|_| panic!("{printed}"));
    let elapsed = at(1) - at(0);
    let seconds: f64 = lines.last().unwrap().split(' ').map(minutes_and_seconds).sum();
    // Without the limit it would be all of the time, if not twice as much.
    assert!(seconds < 0.5 * elapsed, "{seconds} s of CPU time in {elapsed} s: {printed}");
    let statistics = fs::read_to_string(container.cgroup("cpu").join("cpu.stat")).unwrap();
    assert!(!statistics.contains("nr_throttled 0\n"), "{statistics}");
}

/// A time like `0m1.230s`.
fn minutes_and_seconds(text: &str) -> f64 {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
    minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
}

/// As on a machine of its own: inner engines give scores below 0 to what is to be killed last. But what the
/// operator wants to be killed first stays so.
#[test]
fn oom_scores_can_be_lowered_inside() {
    let _world = shared();
    if !may_lower_oom_scores() {
        let reason = "this machine's root has no CAP_SYS_RESOURCE";
        return cannot_run("limits::oom_scores_can_be_lowered_inside", reason);
    }
    let lower =
        |score| format!("cat /proc/1/oom_score_adj && echo {score} >/proc/self/oom_score_adj");
    let container = Container::sleeping::<&str>([]);
    assert_eq!(container.sh(&lower("-999")).ok(), "0");
    container.sh(&lower("-1000")).fails();
    // By init's children, too, not only by an exec.
    let printed = Container::new(BUSYBOX).sh("echo -998 >/proc/self/oom_score_adj && echo done");
    assert_eq!(printed.ok(), "done");

    let first = Container::sleeping(["--oom-score-adj", "300"]);
    assert_eq!(first.sh(&lower("300")).ok(), "300");
    first.sh(&lower("299")).fails();
    let last = Container::sleeping(["--oom-score-adj", "-500"]);
    assert_eq!(last.sh(&lower("-999")).ok(), "-500");

    let system = Container::booted::<&str>(BOOKWORM, []);
    system.sh("docker load --input /opt/busybox.tar").ok();
    let run = format!("docker run --rm --oom-score-adj -500 {BUSYBOX} cat /proc/1/oom_score_adj");
    assert_eq!(system.sh(&run).ok(), "-500");
}

/// Whether root of this machine has the capability for it, number 24.
fn may_lower_oom_scores() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & (1 << 24) != 0
}

#[test]
fn pids_limit_holds() {
    let _world = shared();
    if !World::current().has_controllers("pids_limit_holds", &["pids"]) {
        return;
    }
    if !Engine::current().has("limits::pids_limit_holds", &[Feature::PidsLimit]) {
        return;
    }
    let container = Container::sleeping(["--pids-limit", "20"]);
    let output = container.sh("for i in $(seq 40); do sleep 100 & done; wait");
    assert!(output.stderr.contains("fork"), "the shell should run out of processes: {output}");
    let running = container.top().lines().count() - 1;
    assert!(running <= 20, "{running} processes");
}

#[test]
fn cpuset_holds() {
    let _world = shared();
    if !World::current().has_controllers("cpuset_holds", &["cpuset"]) {
        return;
    }
    if !Engine::current().has("limits::cpuset_holds", &[Feature::Cpuset]) {
        return;
    }
    let last = allowed_cpus(std::process::id());
    let last = last.split(['-', ',']).next_back().unwrap();
    let container = Container::sleeping(["--cpuset-cpus", last]);
    assert_eq!(allowed_cpus(container.pid()), last);
    if last != "0" {
        container.sh("taskset -p 1 1").fails();
        assert_eq!(allowed_cpus(container.pid()), last);
    }
}

fn allowed_cpus(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn limits_cannot_be_lifted_from_inside() {
    let _world = shared();
    let world = World::current();
    if !world.has_controllers("limits_cannot_be_lifted_from_inside", &["memory", "pids"]) {
        return;
    }
    let mut limits = vec!["--memory", "100m", "--memory-swap", "100m"];
    let limited = Engine::current() != Engine::Ctr;
    let pids = if limited { "50\n" } else { "max\n" };
    if limited {
        limits.extend(["--pids-limit", "50"]);
    }
    let container = Container::sleeping(limits);
    let read = || {
        let memory = if world.view == "v2" { "memory.max" } else { "memory.limit_in_bytes" };
        let memory = container.cgroup("memory").join(memory);
        let pids = container.cgroup("pids").join("pids.max");
        (fs::read_to_string(memory).unwrap(), fs::read_to_string(pids).unwrap())
    };
    assert_eq!(read(), ("104857600\n".into(), pids.into()));
    for attempt in [
        "echo max >/sys/fs/cgroup/memory.max",
        "echo max >/sys/fs/cgroup/pids.max",
        "mkdir /c && mount -t cgroup -o memory none /c && echo -1 >/c/memory.limit_in_bytes",
        "mkdir -p /d && mount -t cgroup2 none /d && echo max >/d/memory.max",
        "unshare -C sh -c 'mkdir -p /f && mount -t cgroup2 none /f && echo max >/f/memory.max'",
        "echo max >/proc/1/root/sys/fs/cgroup/memory.max",
        "chmod 666 /sys/fs/cgroup/memory.max && echo max >/sys/fs/cgroup/memory.max",
    ] {
        container.sh(attempt).fails();
        assert_eq!(read(), ("104857600\n".into(), pids.into()), "after: {attempt}");
    }
}

#[test]
fn child_cgroups_can_be_made_inside() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    assert_eq!(container.sh("grep ^0: /proc/1/cgroup").ok(), "0::/init.scope");
    let script = "mkdir -p /sys/fs/cgroup/a/b && sleep 500 & echo $! >/sys/fs/cgroup/a/b/cgroup.procs \
                  && grep ^0: /proc/$!/cgroup; kill $!; wait";
    let placed = container.sh(&format!("mkdir -p /sys/fs/cgroup/a/b; {script}")).stdout;
    assert_eq!(placed.trim(), "0::/a/b");
    wait_until("the empty cgroups can be removed", Duration::from_secs(5), || {
        match container.sh("rmdir /sys/fs/cgroup/a/b /sys/fs/cgroup/a") {
            output if output.success() => Ok(()),
            output => Err(output.to_string()),
        }
    });
    let listed = container.sh("ls -ld /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup").ok();
    assert_eq!(listed.matches("root").count(), 4, "both belong to container root:\n{listed}");
}

#[test]
fn systemd_makes_slices_and_scopes() {
    let _world = shared();
    let system: Running = Container::booted::<&str>(TRIXIE, []);
    let script = "systemd-run --quiet --scope --slice=test-inner.slice grep ^0: /proc/self/cgroup";
    let cgroup = system.sh(script).ok();
    assert!(cgroup.starts_with("0::/test.slice/test-inner.slice/run-"), "{cgroup}");
}

#[test]
fn six_megabytes_are_enough_to_start() {
    let _world = shared();
    if !World::current().has_controllers("limits::six_megabytes_are_enough_to_start", &["memory"]) {
        return;
    }
    let container = Container::sleeping(["--memory", "6m"]);
    assert_eq!(container.sh("head -n 1 /proc/meminfo | tr -d ' '").ok(), "MemTotal:6144kB");
    container.docker(["restart", "--time", "0"]);
    container.sh("true").ok();
}
