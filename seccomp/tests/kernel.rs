//! The programs, loaded into a real kernel.
//!
//! A filter can't be taken off again, so each case runs in a child: this test binary, asked to run
//! one of its own tests with a variable set.

mod common;

use std::process::{Command, ExitStatus};
use std::time::Duration;

use common::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use serde_json::{Value, json};
use sysbox_kernel::ns::{UnshareFlags, unshare};
use sysbox_kernel::seccomp::install;
use sysbox_seccomp::{Request, program};

const CHILD: &str = "SECCOMP_TEST_CHILD";

fn in_child(test: &str) -> Option<ExitStatus> {
    if std::env::var_os(CHILD).is_some() {
        return None;
    }
    let me = std::env::current_exe().unwrap();
    Some(Command::new(me).args(["--exact", test]).env(CHILD, "1").status().unwrap())
}

/// Compiles for `profile` and loads the program into this thread.
fn load(profile: Option<Value>, system_container: bool) -> Option<std::os::fd::OwnedFd> {
    let profile = profile.map(parse);
    let request = Request { profile: profile.as_ref(), system_container, traps: system_container };
    let (program, _) = program(&request, None).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    install(program.as_bytes(), program.has_traps(), program.flags()).unwrap()
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn the_engines_profile_holds() {
    if let Some(status) = in_child("the_engines_profile_holds") {
        assert!(status.success());
        return;
    }
    assert!(load(Some(docker()), false).is_none());
    let unshared = unshare(UnshareFlags::NEWUTS);
    assert_eq!(errno(unshared), Some(Errno::PERM.raw_os_error()));
    assert!(std::fs::read("/proc/self/status").is_ok());
}

#[test]
fn a_system_container_unshares_and_a_denied_call_is_denied() {
    if let Some(status) = in_child("a_system_container_unshares_and_a_denied_call_is_denied") {
        assert!(status.success());
        return;
    }
    let deny = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42});
    assert!(
        load(Some(with_rule(without(without(docker(), "mkdir"), "mkdirat"), deny)), true).is_some()
    );
    assert!(unshare(UnshareFlags::NEWUTS).is_ok(), "run as root");
    let made = std::fs::create_dir(std::env::temp_dir().join("never-made"));
    assert_eq!(errno(made), Some(42));
}

#[test]
fn a_device_node_reaches_the_listener_and_a_fifo_does_not() {
    if let Some(status) = in_child("a_device_node_reaches_the_listener_and_a_fifo_does_not") {
        assert_eq!(status.code(), Some(77), "the child was not stopped by its listener");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (send, receive) = std::sync::mpsc::channel::<std::os::fd::OwnedFd>();
    // A thread that was there before has no filter; it plays the supervisor.
    std::thread::spawn(move || {
        let listener = receive.recv().unwrap();
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        std::process::exit(77);
    });
    let listener = load(Some(docker()), true).unwrap();
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    send.send(listener).unwrap();
    let null = dir.path().join("null");
    let _ = mknodat(CWD, &null, FileType::CharacterDevice, Mode::RUSR, makedev(1, 3));
    std::thread::sleep(Duration::from_secs(10));
}

#[test]
fn podmans_profile_loads_as_it_is() {
    if let Some(status) = in_child("podmans_profile_loads_as_it_is") {
        assert!(status.success());
        return;
    }
    assert!(load(Some(podman()), false).is_none());
}
