//! What journald gets of the log. Needs root: it happens in a mount namespace of the test's own, with a
//! /run in which the test is journald.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sysbox_daemon::log;

const SOCKET: &str = "/run/systemd/journal/socket";
const MARK: &str = "SYSBOX_TEST_JOURNALD";

/// Runs this program's `inside` again, alone, where `/run` is empty.
fn again(mark: &str, stderr: Stdio, stream: Option<&str>) -> Output {
    let script = "mount --make-rprivate / && mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"";
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "--mount", "sh", "-c", script]).arg(program);
    command.args(["--exact", "inside", "--nocapture"]).env(MARK, mark).stderr(stderr);
    match stream {
        Some(stream) => command.env("JOURNAL_STREAM", stream),
        None => command.env_remove("JOURNAL_STREAM"),
    };
    command.output().unwrap()
}

#[test]
fn records_have_levels_and_fields() {
    let output = again("journald", Stdio::piped(), None);
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("stopped by hand"), "{output:?}");
}

#[test]
fn standard_error_that_systemd_connected_means_journald() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stat = rustix::fs::fstat(&theirs).unwrap();
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    let output = again("auto", Stdio::from(OwnedFd::from(theirs)), Some(&stream));
    drop(ours);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn without_journald_it_is_an_error_that_names_it() {
    let output = again("absent", Stdio::piped(), None);
    assert!(output.status.success(), "{output:?}");
}

/// The part that runs in the namespace; nothing without the mark.
#[test]
fn inside() {
    let Ok(mark) = std::env::var(MARK) else { return };
    if mark == "absent" {
        let error = log::init("sysbox-test", "info", log::Output::Journald).unwrap_err();
        assert!(format!("{error:#}").contains("journald; is it running?"), "{error:#}");
        return;
    }
    std::fs::create_dir_all("/run/systemd/journal").unwrap();
    let journald = UnixDatagram::bind(SOCKET).unwrap();
    journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let output = if mark == "auto" { log::Output::Auto } else { log::Output::Journald };
    log::init("sysbox-test", "info", output).unwrap();
    tracing::debug!("not to be seen");
    tracing::warn!(container = "c1", "stopped by hand");
    let record = receive(&journald);
    for (name, value) in [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "sysbox-test"),
        ("F_CONTAINER", "c1"),
        ("MESSAGE", "stopped by hand"),
    ] {
        assert_eq!(record.get(name).map(String::as_str), Some(value), "{name} of {record:?}");
    }
}

/// One record as journald's protocol has it: `NAME=value`, or a name, the value's length in eight
/// bytes, and the value (systemd.io, "Native Journal Protocol").
fn receive(journald: &UnixDatagram) -> BTreeMap<String, String> {
    let mut buffer = [0; 65536];
    // An empty one only asks whether somebody listens.
    let length = std::iter::repeat_with(|| journald.recv(&mut buffer).unwrap()).find(|&n| n > 0);
    let length = length.unwrap();
    let mut rest = &buffer[..length];
    let mut record = BTreeMap::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            record.insert(name.to_owned(), value.to_owned());
            continue;
        }
        let (length, after) = rest.split_first_chunk::<8>().unwrap();
        let (value, after) = after.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
        record.insert(line, String::from_utf8_lossy(value).into_owned());
        rest = &after[1..];
    }
    record
}
