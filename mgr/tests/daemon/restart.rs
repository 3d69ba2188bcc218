//! The manager dies at any moment and comes back.

use std::fs;

use rustix::process::Signal;

use crate::host::Host;
use crate::{fake_fs, need_root};

#[test]
fn a_killed_manager_knows_its_containers_again() {
    need_root!();
    let mut host = Host::new();
    let (first, _init) = host.run(&host.request("lives"));
    let (_, dying) = host.run(&host.request("dies"));
    let half = host.client();
    half.register(&host.request("half")).unwrap();
    let key = host.fs.lock().unwrap()["lives"].key;

    host.stop(Signal::KILL);
    drop(dying);
    drop(half);
    // sysbox-fs was restarted as well, and has forgotten everything.
    host.fs.lock().unwrap().clear();
    host.start();

    assert_eq!(host.state("lives").as_deref(), Some("running"));
    assert_eq!(host.state("dies"), None, "it had no volumes to be kept");
    // Its runtime, this process, lives and could go on.
    assert_eq!(host.state("half").as_deref(), Some("creating"));
    host.client().unregister("half").unwrap();
    assert_eq!(host.state("half"), None, "its creation was interrupted");
    host.wait("sysbox-fs to be told", || host.fs.lock().unwrap().contains_key("lives"));
    let told = host.fs.lock().unwrap()["lives"].clone();
    assert_eq!((told.key, told.uid), (key, first.uid_mappings[0].host_id));

    let (second, _init) = host.run(&host.request("new"));
    let (a, b) = (first.uid_mappings[0], second.uid_mappings[0]);
    assert!(a.host_id.abs_diff(b.host_id) >= a.size);
    assert!(host.fs.lock().unwrap()["new"].key > key + 2, "keys are never used again");
}

#[test]
fn a_container_that_dies_after_the_restart_is_noticed() {
    need_root!();
    let mut host = Host::new();
    let (_, init) = host.run(&host.request("c1"));
    assert!(host.stop(Signal::TERM).success());
    host.start();
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    drop(init);
    host.wait("its death to be noticed", || host.state("c1").as_deref() == Some("exited"));
    host.client().unregister("c1").unwrap();
    assert!(host.records().is_empty());
}

#[test]
fn sysbox_fs_is_told_when_it_comes_up_later() {
    need_root!();
    let mut host = Host::new();
    let (_, _init) = host.run(&host.request("c1"));
    host.stop(Signal::KILL);
    // The socket is there, but nobody listens: the way of a daemon that died.
    fs::remove_file(host.run_dir().join("sysfs.sock")).unwrap();
    host.start();
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    host.fs = fake_fs::start(&host.run_dir());
    host.wait("sysbox-fs to be told", || host.fs.lock().unwrap().contains_key("c1"));
}

#[test]
fn a_corrupt_record_is_set_aside_and_its_ids_stay_taken() {
    need_root!();
    let mut host = Host::new();
    let request = host.request("lost");
    let client = host.client();
    let (lost, userns) = client.register(&request).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&userns);
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--user=/proc/{}/fd/{fd}", std::process::id())).args([
        "--preserve-credentials",
        "sleep",
        "1000",
    ]);
    let init = crate::host::Init::start(&mut command);
    host.wait("init to be in its user namespace", || {
        let map = fs::read_to_string(format!("/proc/{}/uid_map", init.pid())).unwrap();
        map.contains(&lost.uid_mappings[0].host_id.to_string())
    });
    client.commit("lost", init.pid()).unwrap();

    host.stop(Signal::KILL);
    fs::write(host.path("data/containers/lost.json"), "{\"version\": 1,").unwrap();
    host.start();
    assert_eq!(host.state("lost"), None);
    assert_eq!(host.records(), ["lost.json.corrupt"]);
    for n in 0..3 {
        let (new, _) = host.run(&host.request(&format!("new{n}")));
        let (a, b) = (lost.uid_mappings[0], new.uid_mappings[0]);
        assert!(a.host_id.abs_diff(b.host_id) >= a.size, "{} is in use", b.host_id);
    }
}

#[test]
fn a_creation_goes_on_with_the_next_manager() {
    need_root!();
    let mut host = Host::new();
    let first = host.client();
    let (registered, userns) = first.register(&host.request("half")).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&userns);
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--user=/proc/{}/fd/{fd}", std::process::id()));
    let init = crate::host::Init::start(command.args(["--preserve-credentials", "sleep", "1000"]));
    let map = format!("/proc/{}/uid_map", init.pid());
    let base = registered.uid_mappings[0].host_id.to_string();
    host.wait("init to be inside", || fs::read_to_string(&map).unwrap().contains(&base));

    host.stop(Signal::KILL);
    host.start();
    let second = host.client();
    second.commit("half", init.pid()).unwrap();
    assert_eq!(host.state("half").as_deref(), Some("running"));
    // The answer may have been lost as well.
    host.stop(Signal::KILL);
    host.start();
    host.client().commit("half", init.pid()).unwrap();
    assert_eq!(host.state("half").as_deref(), Some("running"));
    let other = Host::new();
    assert!(other.client().commit("half", init.pid()).is_err());
}
