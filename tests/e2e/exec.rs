//! `docker exec` and the other commands that act on a running container.

use std::time::Duration;

use sysbox_tests::{BUSYBOX, Container, Engine, Feature, World, shared, wait_until};

#[test]
fn exec_passes_streams_and_exit_codes() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let output = container.sh("echo out; echo err >&2; exit 42");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(output.code(), 42);

    assert_eq!(container.exec_with_input("quiet\n", ["tr", "a-z", "A-Z"]).ok(), "QUIET");

    // Engines before 23 say 126 in both cases, ctr 1 for whatever the runtime refuses.
    let ctr = Engine::current() == Engine::Ctr;
    let missing = container.exec(&[], ["/no/such/program"]);
    assert!([126, 127].contains(&missing.code()) || ctr, "{missing}");
    assert!(missing.fails().contains("/no/such/program"));
    let data = container.exec(&[], ["/etc/passwd"]);
    assert_eq!(data.code(), if ctr { 1 } else { 126 }, "a file that can't be executed: {data}");
}

#[test]
fn exec_with_a_terminal() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let output =
        container.exec(&["--tty"], ["sh", "-c", "tty; test -t 0 && test -t 1 && echo yes"]);
    // ctr also shows the end of the input there, and at times complains of the end of the program.
    let two_lines = |text: String| {
        let text = text.replace('\r', "").replace("^@", "");
        text.lines().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let printed = two_lines(output.ok());
    assert!(printed[0].starts_with("/dev/pts/") && printed[1] == "yes", "{printed:?}");

    let output = Container::new(BUSYBOX).args(["--tty"]).sh("tty; stat -c %u /dev/console");
    assert_eq!(two_lines(output.ok()), ["/dev/pts/0", "0"]);
}

#[test]
fn exec_takes_user_environment_and_directory() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let exec = |options: &[&str], script: &str| container.exec(options, ["sh", "-c", script]).ok();
    assert_eq!(exec(&[], "id -u; id -g"), "0\n0");
    assert_eq!(exec(&["--user", "1000:1001"], "id -u; id -g"), "1000\n1001");
    assert_eq!(exec(&["--user", "user"], "id -u; touch /tmp/f; stat -c %u /tmp/f"), "1000\n1000");
    assert_eq!(exec(&["--env", "GIVEN=a value"], "echo $GIVEN"), "a value");
    assert_eq!(exec(&["--workdir", "/usr/bin"], "pwd"), "/usr/bin");
}

#[test]
fn exec_joins_everything_that_init_is_in() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let script = format!("for i in 1 self; do readlink /proc/$i/ns/{namespace}; done");
        let both = container.sh(&script).ok();
        let (init, own) = both.split_once('\n').unwrap();
        assert_eq!(init, own);
        let host = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(own, host.to_str().unwrap(), "the host's {namespace} namespace");
    }
    for line in ["Seccomp:", "Seccomp_filters:", "CapEff:", "CapBnd:", "NoNewPrivs:"] {
        let both = container.sh(&format!("grep -h ^{line} /proc/1/status /proc/self/status")).ok();
        let (init, own) = both.split_once('\n').unwrap();
        assert_eq!(init, own);
    }
    assert_eq!(container.sh("grep ^Seccomp: /proc/self/status").ok(), "Seccomp:\t2");
}

#[test]
fn top_and_inspect() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    container.exec(&["--detach"], ["sleep", "2000"]).ok();
    let top = container.top();
    assert!(top.contains("sleep 1000") && top.contains("sleep 2000"), "{top}");
    assert_eq!(container.state(), "running");
    if Engine::current() != Engine::Ctr {
        let stats = container.docker(["stats", "--no-stream", "--format", "{{.Name}}"]);
        assert_eq!(stats, container.name);
    }
}

#[test]
fn stats_show_use_and_limit() {
    let _world = shared();
    if !World::current().has_controllers("stats_show_use_and_limit", &["memory", "pids"]) {
        return;
    }
    let container = Container::sleeping(["--memory", "200m"]);
    container.sh("mkdir /big && mount -t tmpfs none /big && head -c 50m /dev/zero >/big/file").ok();
    let stats = container.stats();
    let mib = 1024.0 * 1024.0;
    assert!((stats.memory_limit / mib - 200.0).abs() < 0.1, "{stats:?}");
    assert_eq!(stats.processes, 1, "{stats:?}");
    assert!((48.0..80.0).contains(&(stats.memory / mib)), "50 of 200 MB are used: {stats:?}");
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    let _world = shared();
    let script = "while :; do echo >>/count; sleep 0.05; done";
    let container = Container::new(BUSYBOX).start(["sh", "-c", script]);
    let count = || {
        let file = container.upper_dir().join("count");
        std::fs::metadata(file).map_or(0, |metadata| metadata.len())
    };
    let wait_to_grow = || {
        let before = count();
        wait_until("the container works", Duration::from_secs(10), || {
            if count() > before { Ok(()) } else { Err(format!("count {before}")) }
        });
    };
    wait_to_grow();
    container.pause();
    assert_eq!(container.state(), "paused");
    let before = count();
    // The only fixed wait: nothing must happen in it.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(count(), before, "a paused container went on working");
    container.sh("true").fails();
    container.unpause();
    wait_to_grow();
    assert_eq!(container.sh("echo thawed").ok(), "thawed");
}

#[test]
fn wait_gives_the_exit_code() {
    let _world = shared();
    let container = Container::new(BUSYBOX).start(["sh", "-c", "exit 7"]);
    assert_eq!(container.wait(), "7");

    let container = Container::sleeping::<&str>([]);
    assert_eq!(container.kill(), "137");
}

#[test]
fn update_changes_the_limits() {
    let _world = shared();
    let world = World::current();
    if !world.has_controllers("update_changes_the_limits", &["memory", "cpu", "pids"]) {
        return;
    }
    let test = "exec::update_changes_the_limits";
    if !Engine::current().has(test, &[Feature::Update]) {
        return;
    }
    let container = Container::sleeping(["--memory", "200m", "--memory-swap", "200m"]);
    container.docker(["update", "--memory", "100m", "--memory-swap", "100m", "--cpus", "0.5"]);
    let read = |controller: &str, v1: &str, v2: &str| {
        let file = if world.view == "v2" { v2 } else { v1 };
        let path = container.cgroup(controller).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max").trim(), "104857600");
    assert!(read("cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    if Engine::current().has(test, &[Feature::UpdatePids]) {
        container.docker(["update", "--pids-limit", "33"]);
        assert_eq!(read("pids", "pids.max", "pids.max").trim(), "33");
    }
}
