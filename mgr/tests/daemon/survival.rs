//! What a manager outlives: its own death at any step, a full or stale run directory, and a start by
//! whoever listens in its place.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use rustix::process::Signal;
use sysbox_ipc::crash::POINTS;

use crate::host::Host;
use crate::need_root;

/// Starts the manager with a file that names its crash points.
fn with_crash_points(host: &mut Host) {
    let file = host.path("crash");
    host.start_in(&[("SYSBOX_CRASH_FILE", file.to_str().unwrap())], &[]);
}

#[test]
fn volumes_are_whole_or_not_there_whenever_the_manager_dies() {
    need_root!();
    for (_, point, reached) in POINTS.iter().filter(|(_, point, _)| point.starts_with("volume.")) {
        let mut host = Host::without_daemon();
        host.fs = crate::fake_fs::start(&host.run_dir());
        with_crash_points(&mut host);
        let request = host.request_with_volume("c1");
        fs::write(format!("{}/var/lib/docker/baked", request.rootfs), "in").unwrap();
        fs::write(host.path("crash"), point).unwrap();
        host.client().register(&request).unwrap_err();
        assert!(!host.path("crash").exists(), "{point} was not passed");
        host.reap();
        host.start();
        // Its runtime does as it would: asks again, and gets the volume with all that is in the image.
        let (registered, _init) = host.run(&request);
        let volume = &registered.volumes[0].source;
        let baked = fs::read_to_string(format!("{volume}/baked"));
        assert_eq!(baked.unwrap(), "in", "after a death where {reached}");
        assert_eq!(host.volumes(), ["c1"], "{point}");
    }
}

#[test]
fn a_sweep_that_was_interrupted_is_done_again() {
    need_root!();
    let mut host = Host::without_daemon();
    host.fs = crate::fake_fs::start(&host.run_dir());
    with_crash_points(&mut host);
    let request = host.request_with_volume("c1");
    drop(host.run(&request));
    host.client().unregister("c1").unwrap();
    fs::write(host.path("crash"), "sweep.discarded").unwrap();
    fs::remove_dir_all(&request.rootfs).unwrap();
    host.wait("the manager to die", || !host.path("crash").exists());
    host.reap();
    assert_eq!(host.records(), ["c1.json"]);
    host.start();
    host.wait("the record to go", || host.records().is_empty() && host.volumes().is_empty());
}

#[test]
fn what_the_engine_removed_without_deleting_it_gives_its_ids_back() {
    need_root!();
    let host = Host::new();
    let mut request = host.request("c1");
    let state_dir = host.path("state/c1");
    fs::create_dir_all(&state_dir).unwrap();
    request.state_dir = state_dir.to_str().unwrap().into();
    drop(host.run(&request));
    host.wait("its end", || host.state("c1").as_deref() == Some("exited"));
    // As long as the engine has it, it may still delete it.
    drop(host.run(&host.request("c2")));
    assert_eq!(host.state("c1").as_deref(), Some("exited"));
    fs::remove_dir_all(&request.rootfs).unwrap();
    drop(host.run(&host.request("c3")));
    assert_eq!(host.state("c1"), None);
    assert!(!state_dir.exists() && !host.fs.lock().unwrap().contains_key("c1"));
}

#[test]
fn a_full_run_directory_keeps_nobody_from_starting() {
    need_root!();
    crate::coherence::own_mounts();
    let mut host = Host::without_daemon();
    mount("tmpfs", host.run_dir(), "tmpfs", MountFlags::empty(), c"size=256k").unwrap();
    host.fs = crate::fake_fs::start(&host.run_dir());
    host.start();
    let (_, _init) = host.run(&host.request("c1"));
    host.stop(Signal::KILL);
    let filled = fs::write(host.run_dir().join("fill"), vec![0; 1 << 20]);
    assert!(filled.is_err(), "the run directory should be full");
    host.start();
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    host.stop(Signal::TERM);
    unmount(host.run_dir(), UnmountFlags::DETACH).unwrap();
}

#[test]
fn stale_sockets_and_pid_files_are_replaced() {
    need_root!();
    let mut host = Host::new();
    host.stop(Signal::KILL);
    // What another program has put there, or a crash of the file system has left.
    for name in ["sysmgr.sock", "sysbox.sock"] {
        fs::remove_file(host.run_dir().join(name)).unwrap();
        fs::write(host.run_dir().join(name), "no socket").unwrap();
    }
    fs::write(host.run_dir().join("sysmgr.pid"), "garbage").unwrap();
    host.start();
    let (_, _init) = host.run(&host.request("c1"));
    assert_eq!(host.state("c1").as_deref(), Some("running"));
}

#[test]
fn a_call_that_came_before_the_manager_is_answered_by_it() {
    need_root!();
    let mut host = Host::without_daemon();
    host.fs = crate::fake_fs::start(&host.run_dir());
    // As systemd does for a socket unit.
    let waiting = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&waiting, &SocketAddrUnix::new(host.socket()).unwrap()).unwrap();
    listen(&waiting, 16).unwrap();
    let early = host.client();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 \
                  LISTEN_FDNAMES=sysbox-mgr.socket exec \"$0\" \"$@\"";
    let manager = host.command();
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(manager.get_program()).args(manager.get_args());
    // Set here, so that the manager need not execute itself once more.
    command.env("SYSBOX_RUN_DIR", host.run_dir()).process_group(0);
    let log = fs::File::create(host.path("log")).unwrap();
    host.adopt(command.stdin(Stdio::from(waiting)).stderr(log).spawn().unwrap());
    assert!(early.status().containers.is_empty());
    let (_, _init) = host.run(&host.request("c1"));
    assert_eq!(host.state("c1").as_deref(), Some("running"));
}
