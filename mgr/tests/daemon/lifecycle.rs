//! Register, Commit, Unregister, and what is left when they do not come.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sysbox_cgroups::Layout;
use sysbox_ipc::proto;

use crate::client::Client;
use crate::host::{Host, Init};
use crate::need_root;

#[test]
fn a_container_from_register_to_unregister() {
    need_root!();
    let host = Host::new();
    let request = host.request("c1");
    let client = host.client();
    let (registered, userns) = client.register(&request).unwrap();
    assert_eq!(host.state("c1").as_deref(), Some("creating"));
    assert_eq!(registered.emulated_files, ["proc/meminfo"]);
    let map = registered.uid_mappings[0];
    assert_eq!((map.container_id, map.size), (0, 65536));
    assert_eq!(registered.gid_mappings, registered.uid_mappings);
    let told = host.fs.lock().unwrap()["c1"].clone();
    assert_eq!((told.uid, told.gid), (map.host_id, map.host_id));
    assert!(told.created_boottime_ns > 0);
    drop(userns);

    assert!(client.register(&host.request("c2")).unwrap_err().contains("is creating c1"));
    let duplicate = host.client().register(&request).unwrap_err();
    assert!(duplicate.contains("exists already (creating)"), "{duplicate}");

    let init = Init::start(Command::new("sleep").arg("1000"));
    client.commit("c1", init.pid()).unwrap();
    drop(client);
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    let running = host.client().unregister("c1").unwrap_err();
    assert!(running.contains("still runs"), "{running}");

    drop(init);
    host.wait("its death to be noticed", || host.state("c1").as_deref() == Some("exited"));
    host.client().unregister("c1").unwrap();
    host.client().unregister("c1").unwrap();
    assert_eq!(host.state("c1"), None);
    assert!(host.fs.lock().unwrap().is_empty());
    assert!(host.records().is_empty());
}

#[test]
fn bad_requests_are_refused_and_leave_nothing() {
    need_root!();
    let host = Host::new();
    let client = host.client();
    let refused = |change: &dyn Fn(&mut proto::Register), why: &str| {
        let mut request = host.request("bad");
        change(&mut request);
        let error = client.register(&request).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused(&|r| r.id = "a/b".into(), "not valid");
    refused(&|r| r.id = "..".into(), "not valid");
    refused(&|r| r.rootfs = host.path("subuid").to_str().unwrap().into(), "not a directory");
    refused(&|r| r.owner_dir = "/does/not/exist".into(), "/does/not/exist");
    refused(&|r| r.id_range_size = u32::MAX, "no range of 4294967295 ids is free");
    let init = Init::start(Command::new("sleep").arg("1000"));
    let error = client.commit("nobody", init.pid()).unwrap_err();
    assert!(error.contains("has not registered it"), "{error}");
    assert!(host.records().is_empty() && host.volumes().is_empty());
    assert!(host.fs.lock().unwrap().is_empty());
}

#[test]
fn without_sysbox_fs_the_error_says_how_to_start_it() {
    need_root!();
    let mut host = Host::without_daemon();
    host.start();
    let error = host.client().register(&host.request("c1")).unwrap_err();
    assert!(error.contains("sysbox-fs is not running") && error.contains("start"), "{error}");
    assert!(host.records().is_empty());
}

#[test]
fn closing_the_connection_takes_everything_back() {
    need_root!();
    let host = Host::new();
    let request = host.request_with_volume("c1");
    let client = host.client();
    client.register(&request).unwrap();
    assert_eq!(host.volumes(), ["c1"]);
    drop(client);
    host.wait("the rollback", || host.records().is_empty());
    assert!(host.volumes().is_empty() && host.fs.lock().unwrap().is_empty());
    // The id is free again.
    host.client().register(&request).unwrap();
}

#[test]
fn a_delete_waits_for_the_end_of_a_failed_create() {
    need_root!();
    let host = Host::new();
    let client = host.client();
    client.register(&host.request("c1")).unwrap();
    std::thread::scope(|scope| {
        let delete = scope.spawn(|| host.client().unregister("c1"));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!delete.is_finished());
        drop(client);
        delete.join().unwrap().unwrap();
    });
    assert!(host.records().is_empty());
}

/// Not a test of its own: the runtime process that the next test kills.
#[test]
fn runtime_process() {
    let Ok(dir) = std::env::var("MGR_TEST_RUNTIME") else {
        return;
    };
    let dir = PathBuf::from(dir);
    let text = fs::read(dir.join("request")).unwrap();
    let request = <proto::Register as prost::Message>::decode(&text[..]).unwrap();
    let client = Client::connect(&dir.join("run/sysmgr.sock"));
    client.register(&request).unwrap();
    fs::write(dir.join("registered"), "").unwrap();
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn of_a_killed_runtime_cgroup_processes_and_state_go_too() {
    need_root!();
    a_runtime_is_killed(false);
}

/// A runtime that was refused a cgroup with somebody's processes in it may have ended, too, when
/// its connection is found closed.
#[test]
fn a_cgroup_that_was_there_before_is_left_alone() {
    need_root!();
    a_runtime_is_killed(true);
}

fn a_runtime_is_killed(was_there: bool) {
    let layout = Layout::detect().unwrap();
    let root = layout.unified_root().expect("a cgroup v2 hierarchy");
    let id = format!("mgr-test-{}-{was_there}", std::process::id());
    let parent = root.join(format!("parent-of-{id}"));
    let cgroup = parent.join(&id);
    let mut inside = Command::new("sleep").arg("1000").spawn().unwrap();
    let occupy = || {
        fs::create_dir_all(cgroup.join("inner")).unwrap();
        fs::write(cgroup.join("inner/cgroup.procs"), inside.id().to_string()).unwrap();
    };
    if was_there {
        occupy();
    }
    let host = Host::new();
    let state_dir = host.path(&id);
    fs::create_dir_all(state_dir.join("sub")).unwrap();
    let unified = cgroup.to_str().unwrap().to_owned();
    let request = proto::Register {
        cgroups: Some(proto::CgroupPaths { unified, ..Default::default() }),
        state_dir: state_dir.to_str().unwrap().into(),
        ..host.request(&id)
    };
    fs::write(host.path("request"), prost::Message::encode_to_vec(&request)).unwrap();
    let mut runtime = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::runtime_process"])
        .env("MGR_TEST_RUNTIME", host.path(""))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    host.wait("the runtime to register", || host.path("registered").exists());
    if !was_there {
        occupy();
    }
    runtime.kill().unwrap();
    runtime.wait().unwrap();

    host.wait("the rollback", || host.records().is_empty());
    assert!(!state_dir.exists());
    assert_eq!(cgroup.exists(), was_there);
    let lives = inside.try_wait().unwrap().is_none();
    inside.kill().unwrap();
    assert!(!inside.wait().unwrap().success());
    assert_eq!(lives, was_there, "only what ran there before lives on");
    if was_there {
        fs::remove_dir(cgroup.join("inner")).unwrap();
        fs::remove_dir(&cgroup).unwrap();
    }
    fs::remove_dir(parent).unwrap();
}

#[test]
fn ready_is_told_and_a_stop_is_graceful() {
    need_root!();
    let mut host = Host::without_daemon();
    let socket = std::os::unix::net::UnixDatagram::bind(host.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut command = host.command();
    let mut daemon =
        command.env("NOTIFY_SOCKET", host.path("notify")).stderr(Stdio::null()).spawn().unwrap();
    let mut text = [0; 64];
    let length = socket.recv(&mut text).unwrap();
    assert_eq!(&text[..length], b"READY=1\n");
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(host.socket().exists(), "callers wait for the next instance");
    host.start();
    assert!(host.stop(Signal::INT).success());
}

#[test]
fn a_second_instance_is_refused() {
    need_root!();
    let host = Host::new();
    let second = host.command().output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    let pid = host.client().status().pid;
    assert!(!second.status.success());
    assert!(error.contains(&format!("runs already with pid {pid}")), "{error}");
    // Not with the same data either.
    let second = host.command().arg("--run-dir").arg(host.path("run2")).output().unwrap();
    assert!(!second.status.success());
}
