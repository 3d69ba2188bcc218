//! A container's cgroup from birth to death, on the real kernel.
//!
//! Needs root. The whole binary runs twice: in the view of the host (hybrid or pure v2), and in a
//! private mount namespace where `/sys/fs/cgroup` is pure v2.

mod common;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use common::{Process, Sandbox, dirs};
use sysbox_cgroups::{Cgroup, Error, Layout};

const SIGKILL: i32 = 9;
/// What systemd as PID 1 takes for "halt".
const SIGRTMIN_PLUS_3: i32 = 37;

#[test]
fn again_in_a_pure_v2_view() {
    common::again_in_a_pure_v2_view();
}

#[test]
fn create_attach_remove() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/docker/one");
    for dir in dirs(&cgroup) {
        assert!(dir.join("cgroup.procs").exists(), "{dir:?}");
    }
    let mut process = Process::sleeping();
    cgroup.attach(process.pid()).unwrap();
    for line in process.cgroups().lines() {
        let path = line.splitn(3, ':').nth(2).unwrap();
        let mounted = sandbox.layout.mounts().iter().any(|mount| {
            let names = line.split(':').nth(1).unwrap();
            mount.controllers.as_ref().map_or(names.is_empty(), |c| c.join(",") == names)
        });
        assert_eq!(path.ends_with("/docker/one"), mounted, "{line}");
    }
    assert_eq!(cgroup.pids().unwrap(), [process.pid()]);
    cgroup.kill_all(SIGKILL).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(SIGKILL));
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    assert!(cgroup.pids().unwrap().is_empty());
    assert!(!cgroup.frozen().unwrap());
}

#[test]
fn a_cgroup_in_use_is_refused_and_an_empty_one_taken() {
    let sandbox = Sandbox::new();
    let first = sandbox.create("/x");
    sandbox.create("/x");
    let process = Process::sleeping();
    first.attach(process.pid()).unwrap();
    assert!(matches!(sandbox.plan("/x").create(), Err(Error::InUse { .. })));
    assert!(first.pids().unwrap().contains(&process.pid()));
}

#[test]
fn delegated_to_container_root_and_not_more() {
    const ROOT: u32 = 231_072;
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/docker/two");
    cgroup.delegate(ROOT, ROOT + 1).unwrap();
    let Some(dir) = cgroup.unified() else { return };
    let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(owner(dir), (ROOT, ROOT + 1));
    for name in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        assert_eq!(owner(&dir.join(name)), (ROOT, ROOT + 1), "{name}");
    }
    for name in ["cgroup.freeze", "cgroup.kill", "cgroup.max.depth", "cgroup.type"] {
        assert_eq!(owner(&dir.join(name)), (0, 0), "{name}");
    }
    // Container root builds a tree of its own and moves about in it.
    let script = "mkdir a && mkdir a/b && echo 0 >a/b/cgroup.procs && sleep 1000";
    let process = {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read line; {script}")]).current_dir(dir).uid(ROOT).gid(ROOT);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        cgroup.attach(child.id() as i32).unwrap();
        drop(child.stdin.take());
        Process(child)
    };
    wait_for(|| process.cgroups().lines().any(|line| line.ends_with("docker/two/a/b")));
    // The shell is there at once, what it starts next a moment later.
    wait_for(|| cgroup.pids().unwrap().len() == 2);
    cgroup.kill_all(SIGKILL).unwrap();
    drop(process);
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
}

#[test]
fn exec_finds_a_place() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/c");
    let Some(dir) = cgroup.unified().map(Path::to_owned) else {
        return;
    };
    let at = |process: &Process| {
        let cgroups = process.cgroups();
        let line = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        line.rsplit('/').next().unwrap().to_owned()
    };
    let process = Process::sleeping();
    cgroup.attach_exec(process.pid(), "init.scope").unwrap();
    assert_eq!(at(&process), "c", "no leaf yet: the container's own cgroup");
    fs::create_dir(dir.join("init.scope")).unwrap();
    cgroup.attach_exec(process.pid(), "init.scope").unwrap();
    assert_eq!(at(&process), "init.scope");
    // A leaf that takes no processes is not the end.
    let odd = sandbox.create("/odd");
    let leaf = odd.unified().unwrap().join("odd.scope");
    let threaded = leaf.with_file_name("threaded");
    fs::create_dir(&threaded).unwrap();
    fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    fs::create_dir(&leaf).unwrap();
    assert_eq!(fs::read_to_string(leaf.join("cgroup.type")).unwrap(), "domain invalid\n");
    let other = Process::sleeping();
    odd.attach_exec(other.pid(), "odd.scope").unwrap();
    assert_eq!(at(&other), "odd");
    let gone = cgroup.attach_exec(i32::MAX, "init.scope").unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(3), "{gone}");
}

#[test]
fn freeze_thaw_and_kill_while_frozen() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/f");
    cgroup.freeze().expect("an empty cgroup can be frozen");
    cgroup.thaw().unwrap();
    let mut process = Process::run("while :; do :; done");
    cgroup.attach(process.pid()).unwrap();
    assert!(!cgroup.frozen().unwrap());
    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(11).unwrap().to_owned()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ticks(), before, "it runs although frozen");
    cgroup.thaw().unwrap();
    assert!(!cgroup.frozen().unwrap());
    cgroup.freeze().unwrap();
    cgroup.kill_all(SIGKILL).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(SIGKILL));
}

#[test]
fn a_v1_freezer_does_not_stop_the_kill() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/v1");
    let Some(freezer) = cgroup.v1_dir("freezer") else {
        return;
    };
    let mut process = Process::sleeping();
    cgroup.attach(process.pid()).unwrap();
    fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
    cgroup.kill_all(SIGKILL).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(SIGKILL));
    cgroup.remove().unwrap();
}

#[test]
fn v1_alone() {
    let sandbox = Sandbox::new();
    let v1: Vec<_> =
        sandbox.layout.mounts().iter().filter(|m| m.controllers.is_some()).cloned().collect();
    if v1.is_empty() {
        return;
    }
    let cgroup = Cgroup::plan(&Layout::from_mounts(v1), Some("/old"), "id").unwrap();
    cgroup.create().unwrap();
    let mut process = Process::gated("sleep 1000 & sleep 1000 & wait");
    cgroup.attach(process.pid()).unwrap();
    drop(process.0.stdin.take());
    wait_for(|| cgroup.pids().unwrap().len() == 3);
    cgroup.freeze().unwrap();
    assert!(cgroup.frozen().unwrap());
    cgroup.kill_all(SIGKILL).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(SIGKILL));
    cgroup.remove().unwrap();
}

#[test]
fn other_signals_go_to_each_process_once() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/s");
    let mut processes: Vec<_> = (0..3).map(|_| Process::run("exec sleep 1000")).collect();
    for process in &processes {
        cgroup.attach(process.pid()).unwrap();
    }
    cgroup.kill_all(SIGRTMIN_PLUS_3).unwrap();
    for process in &mut processes {
        assert_eq!(process.0.wait().unwrap().signal(), Some(SIGRTMIN_PLUS_3));
    }
    assert!(cgroup.kill_all(12345).is_err());
}

#[test]
fn a_forking_tree_is_killed_and_removed() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/fork");
    let Some(dir) = cgroup.unified() else { return };
    // So deep that no path can name the last one, with a process there that forks all the time.
    let open = |at: BorrowedFd<'_>, name: &str| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty()).unwrap()
    };
    let mut here = open(rustix::fs::CWD, dir.to_str().unwrap());
    let name = "d".repeat(100);
    for _ in 0..100 {
        rustix::fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
        here = open(here.as_fd(), &name);
    }
    let process = Process::run("while :; do sleep 0.01 & done");
    cgroup.attach(process.pid()).unwrap();
    let procs = format!("/proc/self/fd/{}/cgroup.procs", here.as_raw_fd());
    fs::write(procs, process.pid().to_string()).unwrap();
    assert!(cgroup.pids().unwrap().contains(&process.pid()));
    cgroup.kill_all(SIGKILL).unwrap();
    let begun = Instant::now();
    cgroup.remove().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(!cgroup.exists());
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
#[test]
fn entering_by_itself() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/e");
    let entrance = cgroup.entrance().unwrap();
    assert_eq!(entrance.unified().is_some(), cgroup.unified().is_some());
    let v1 = cgroup.hierarchies().iter().filter(|h| !h.is_unified()).count();
    // To v1 a thread of this test is as good as a process: it moves threads.
    std::thread::spawn(move || {
        entrance.join_v1().unwrap();
        let own = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        assert_eq!(own.lines().filter(|line| line.ends_with("/e")).count(), v1, "{own}");
    })
    .join()
    .unwrap();
}

#[test]
fn the_entrance_of_exec_follows_the_tree() {
    let sandbox = Sandbox::new();
    let cgroup = sandbox.create("/e");
    cgroup.delegate(100_000, 100_000).unwrap();
    let Some(dir) = cgroup.unified() else { return };
    let place = |leaf: &str| {
        let entrance = cgroup.entrance_exec(leaf).unwrap();
        let fd = entrance.unified().unwrap().as_raw_fd();
        fs::read_link(format!("/proc/self/fd/{fd}")).unwrap()
    };
    assert_eq!(place("init.scope"), dir, "no leaf yet");
    fs::create_dir(dir.join("init.scope")).unwrap();
    assert_eq!(place("init.scope"), dir.join("init.scope"));
    // "domain invalid" takes nothing.
    fs::create_dir(dir.join("threaded")).unwrap();
    fs::write(dir.join("threaded/cgroup.type"), "threaded").unwrap();
    assert_eq!(place("init.scope"), dir);
}
