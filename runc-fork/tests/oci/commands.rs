//! The commands themselves: life cycle, output, exit codes, words of the errors.

use std::fs;

use serde_json::Value;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::{World, wait_until};

pub const CASES: &[Case] = &[
    ("commands::life_cycle", life_cycle),
    ("commands::exit_codes_pass_through", exit_codes),
    ("commands::exec_options", exec_options),
    ("commands::pause_and_resume", pause),
    ("commands::ps_list_events_features", output),
    ("commands::update", update),
    ("commands::checkpoint_is_refused", checkpoint),
    ("commands::kill", kill),
    ("commands::log_as_json", log),
];

fn life_cycle(world: &World) {
    let bundle = Bundle::sleeping(world, "life");
    let pid_file = bundle.path("pid");
    bundle.make("create", &["--pid-file", &pid_file]).ok();
    assert_eq!(bundle.state()["status"], "created");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), bundle.pid().to_string());
    bundle.make("create", &[]).fails(1, "container with given ID already exists");
    bundle.call(&["start"], &[]).ok();
    assert_eq!(bundle.state()["status"], "running");
    bundle.call(&["start"], &[]).fails(1, "cannot start an already running container");
    bundle.call(&["delete"], &[]).fails(1, "that is not stopped");
    bundle.call(&["kill"], &["KILL"]).ok();
    wait_until("the end", || bundle.state()["status"] == "stopped");
    assert_eq!(bundle.state()["pid"], 0);
    bundle.call(&["exec"], &["true"]).fails(255, "cannot exec in a stopped container");
    bundle.call(&["delete"], &[]).ok();
    bundle.call(&["state"], &[]).fails(1, "container does not exist");
    bundle.call(&["delete"], &[]).fails(1, "container does not exist");
    bundle.call(&["delete", "--force"], &[]).ok();
}

fn exit_codes(world: &World) {
    let bundle = Bundle::new(world, "code", "echo out; echo err >&2; exit 42");
    let done = bundle.run();
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (Some(42), "out\n", "err\n"));
    bundle.call(&["state"], &[]).fails(1, "does not exist");
    let mut bundle = Bundle::sleeping(world, "missing");
    bundle.spec["process"]["args"] = serde_json::json!(["none-such"]);
    bundle.run().fails(1, "executable file not found in $PATH");
    assert!(!world.path("root").join(&bundle.id).exists());
    world.runtime(&["none-such"]).fails(3, "none-such");
    world.runtime(&["start"]).fails(1, "ID");
}

fn exec_options(world: &World) {
    let bundle = Bundle::sleeping(world, "exec");
    bundle.start();
    bundle.exec("exit 7").fails(7, "");
    let with = |options: &[&str], command: &str| {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        bundle.call(&arguments, &["sh", "-c", command])
    };
    assert_eq!(
        with(&["--cwd", "/bin", "-e", "A=1", "-e", "B=2"], "echo $PWD $A $B").ok(),
        "/bin 1 2"
    );
    assert_eq!(with(&["-u", "5:6", "-g", "7", "-g", "8"], "id -G").ok(), "6 7 8");
    let flags = "grep -E 'NoNewPrivs|CapBnd' /proc/self/status";
    assert!(with(&["--no-new-privs"], flags).ok().contains("NoNewPrivs:\t1"));
    let unknown = with(&["--cap", "NONE_SUCH"], "true");
    assert!(unknown.err.contains("--cap: NONE_SUCH is not known"), "{unknown:?}");
    unknown.ok();
    with(&["--apparmor", "none-such"], "true").fails(255, "apparmor");
    with(&["--process-label", "a:b:c:d"], "true").fails(255, "selinux");
    with(&["--cgroup", "/../x"], "true").fails(255, "bad sub cgroup path");
    with(&["--cgroup", "/none"], "true").fails(255, "--cgroup");
    bundle.exec("mkdir /sys/fs/cgroup/sub").ok();
    assert_eq!(with(&["--cgroup", "/sub"], "cat /proc/self/cgroup | grep ^0").ok(), "0::/sub");
    let pid_file = bundle.path("exec-pid");
    with(&["--detach", "--pid-file", &pid_file], "sleep 1000").ok();
    let pid = fs::read_to_string(pid_file).unwrap();
    let pids = bundle.call(&["ps", "--format", "json"], &[]).ok();
    let pids: Vec<i64> = serde_json::from_str(&pids).unwrap();
    assert!(pids.contains(&pid.parse().unwrap()) && pids.contains(&bundle.pid()));
}

fn pause(world: &World) {
    let bundle = Bundle::sleeping(world, "pause");
    bundle.start();
    bundle.call(&["resume"], &[]).fails(1, "container not paused");
    bundle.call(&["pause"], &[]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    bundle.exec("true").fails(255, "cannot exec in a paused container");
    // As runc: the process starts as soon as the container is resumed.
    let arguments = ["exec", "--ignore-paused", &bundle.id, "true"];
    let mut waiting = world.command(&arguments).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(waiting.try_wait().unwrap().is_none(), "ran in a paused container");
    bundle.call(&["resume"], &[]).ok();
    assert!(waiting.wait().unwrap().success());
    bundle.exec("true").ok();
    bundle.call(&["pause"], &[]).ok();
    // A frozen container dies all the same.
    bundle.call(&["delete", "--force"], &[]).ok();
}

fn output(world: &World) {
    let bundle = Bundle::sleeping(world, "output");
    bundle.start();
    let table = world.runtime(&["list"]).ok();
    let row = table.lines().find(|line| line.starts_with(&bundle.id)).unwrap();
    assert!(table.starts_with("ID ") && row.contains("running"), "{table}");
    assert!(world.runtime(&["list", "-q"]).ok().lines().any(|line| line == bundle.id));
    let all: Value = serde_json::from_str(&world.runtime(&["list", "-f", "json"]).ok()).unwrap();
    assert!(all.as_array().unwrap().iter().any(|c| c["id"] == bundle.id.as_str()));
    world.runtime(&["list", "-f", "xml"]).fails(1, "invalid format option");
    let own = bundle.call(&["ps"], &["-e", "-x"]).ok();
    assert!(own.contains("sleep 1000"), "root's processes are ps's own: {own}");
    let table = bundle.call(&["ps"], &[]).ok();
    assert!(table.contains("sleep 1000") && table.lines().nth(1).unwrap().starts_with("root "));
    assert!(bundle.call(&["ps"], &["-eo", "pid,args"]).ok().contains("sleep 1000"));
    let stats: Value =
        serde_json::from_str(&bundle.call(&["events", "--stats"], &[]).ok()).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&"stats".into(), &bundle.id.as_str().into()));
    let features: Value = serde_json::from_str(&world.runtime(&["features"]).ok()).unwrap();
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert!(world.runtime(&["--version"]).ok().starts_with("sysbox-runc version "));
}

fn update(world: &World) {
    let bundle = Bundle::sleeping(world, "update");
    bundle.start();
    bundle.call(&["update", "--l3-cache-schema", "L3:0=f"], &[]).fails(1, "Intel RDT");
    bundle.call(&["update", "--memory", "much"], &[]).fails(1, "invalid size");
    let done = bundle.call(&["update", "--kernel-memory", "5"], &[]);
    assert!(done.err.contains("ignored") && done.code == Some(0), "{done:?}");
    let done = bundle.call(&["update", "--pids-limit", "77"], &[]);
    // A host without the controller says so; with it, the limit counts.
    if done.code == Some(0) {
        let stats = bundle.call(&["events", "--stats"], &[]).ok();
        let stats: Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats["data"]["pids"]["limit"], 77);
    } else {
        done.fails(1, "pids controller");
    }
}

fn checkpoint(world: &World) {
    world.runtime(&["checkpoint", "--image-path", "/i", "x"]).fails(1, "not supported");
    world.runtime(&["restore", "--bundle", "/b", "-d", "x"]).fails(1, "not supported");
}

fn kill(world: &World) {
    let bundle = Bundle::new(world, "kill", "trap 'exit 9' USR1; while true; do sleep 0.01; done");
    bundle.start();
    bundle.call(&["kill"], &["NONE"]).fails(1, "unknown signal");
    // The shell sets its trap a moment after `start`.
    wait_until("the end", || {
        let _ = bundle.call(&["kill"], &["SIGUSR1"]);
        bundle.state()["status"] == "stopped"
    });
    bundle.call(&["kill"], &[]).fails(1, "container not running");
    bundle.call(&["kill", "--all"], &["9"]).ok();
}

fn log(world: &World) {
    let file = world.path("log.json");
    let file = file.to_str().unwrap();
    world.runtime(&["--log", file, "--log-format", "json", "state", "none"]).fails(1, "none");
    let line: Value = serde_json::from_str(fs::read_to_string(file).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"));
    world.runtime(&["--log-format", "xml", "list"]).fails(1, "invalid log-format");
}
