//! What stays after a crash, between commands, and over a reboot.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::{World, wait_until};

pub const CASES: &[Case] = &[
    ("state::create_killed_at_any_moment", killed_create),
    ("state::delete_killed_at_any_moment", killed_delete),
    ("state::concurrent_commands", concurrent),
    ("state::after_a_reboot_it_is_stopped", reboot),
    ("state::damaged_state_can_be_deleted", damaged),
    ("state::relative_paths", relative),
];

/// Kills `command` after each of many short times; afterwards the container must be deletable and
/// its id free.
fn kill_after(world: &World, bundle: &Bundle<'_>, arguments: &[&str], prepare: impl Fn()) {
    for milliseconds in (0..60).step_by(4) {
        prepare();
        let mut command = world.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        child.wait().unwrap();
        bundle.call(&["delete", "--force"], &[]).ok();
        assert!(!world.path("root").join(&bundle.id).exists());
    }
    let cgroups = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"];
    for dir in cgroups.map(|hierarchy| format!("{hierarchy}/{}", bundle.id)) {
        wait_until(&format!("the end of {dir}"), || !fs::exists(&dir).unwrap());
    }
}

fn killed_create(world: &World) {
    let bundle = Bundle::sleeping(world, "crash-create");
    bundle.write();
    let dir = bundle.dir.to_str().unwrap();
    kill_after(world, &bundle, &["create", "--bundle", dir, &bundle.id], || {});
    bundle.start();
}

fn killed_delete(world: &World) {
    let bundle = Bundle::sleeping(world, "crash-delete");
    kill_after(world, &bundle, &["delete", "--force", &bundle.id], || bundle.start());
}

fn concurrent(world: &World) {
    let bundle = Bundle::sleeping(world, "many");
    bundle.write();
    let dir = bundle.dir.to_str().unwrap();
    let all: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.command(&["run", "-d", "--bundle", dir, &bundle.id]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let codes = all.into_iter().map(|mut child| child.wait().unwrap().success());
    assert_eq!(codes.filter(|good| *good).count(), 1, "one of four gets the id");
    assert_eq!(bundle.state()["status"], "running");
    let execs: Vec<_> =
        (0..4).map(|_| world.command(&["exec", &bundle.id, "true"]).spawn().unwrap()).collect();
    for mut child in execs {
        assert!(child.wait().unwrap().success());
    }
}

fn reboot(world: &World) {
    let bundle = Bundle::sleeping(world, "reboot");
    bundle.start();
    let path = world.path("root").join(&bundle.id).join("state.json");
    let before = fs::read(&path).unwrap();
    let mut state: Value = serde_json::from_slice(&before).unwrap();
    state["init"]["boot_id"] = "an earlier boot".into();
    fs::write(&path, state.to_string()).unwrap();
    assert_eq!(bundle.state()["status"], "stopped");
    assert!(world.runtime(&["list"]).ok().contains("stopped"));
    bundle.call(&["kill"], &["9"]).fails(1, "container not running");
    fs::write(&path, before).unwrap();
    assert_eq!(bundle.state()["status"], "running");
}

fn damaged(world: &World) {
    let bundle = Bundle::sleeping(world, "damaged");
    bundle.start();
    let pid = bundle.pid();
    fs::write(world.path("root").join(&bundle.id).join("state.json"), "{").unwrap();
    bundle.call(&["state"], &[]).fails(1, "delete --force");
    bundle.call(&["delete"], &[]).fails(1, "state.json");
    bundle.call(&["delete", "--force"], &[]).ok();
    wait_until("the end of init", || !fs::exists(format!("/proc/{pid}/ns/net")).unwrap());
}

fn relative(world: &World) {
    let bundle = Bundle::sleeping(world, "relative-paths");
    bundle.write();
    let mut command =
        world.command(&["--log", "log", "run", "-d", "--pid-file", "pid", &bundle.id]);
    command.current_dir(&bundle.dir);
    world.finish(command).ok();
    let pid = fs::read_to_string(bundle.dir.join("pid")).unwrap();
    assert_eq!(pid, bundle.pid().to_string());
    assert!(bundle.dir.join("log").exists());
}
