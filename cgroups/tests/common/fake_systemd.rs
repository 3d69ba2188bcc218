//! Plays the part of systemd that the driver speaks to.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/systemd/private";

/// A call of a method, as it was when it came.
#[derive(Clone, Debug, Default)]
pub struct Call {
    body: Vec<u8>,
    /// The scope's processes were frozen.
    pub frozen: bool,
}

impl Call {
    /// Is this text among the arguments?
    pub fn says(&self, text: &str) -> bool {
        let text = [text.as_bytes(), b"\0"].concat();
        find(&self.body, &text).is_some()
    }

    /// Is this 64-bit number?
    pub fn has_number(&self, number: u64) -> bool {
        self.body.chunks_exact(8).any(|bytes| bytes == number.to_le_bytes())
    }
}

pub struct FakeSystemd {
    last: Arc<Mutex<Call>>,
}

impl FakeSystemd {
    /// Scopes will be made in the hierarchies that are mounted on `roots`, of which the first is the unified one.
    pub fn start(roots: Vec<PathBuf>) -> FakeSystemd {
        let listener = UnixListener::bind(SOCKET).unwrap();
        let last = Arc::new(Mutex::new(Call::default()));
        let shared = Arc::clone(&last);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &roots, &shared);
            }
        });
        FakeSystemd { last }
    }

    /// The last start of a scope, or change of its properties.
    pub fn last_call(&self) -> Call {
        self.last.lock().unwrap().clone()
    }
}

/// Waits ten seconds at most.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn serve(mut stream: UnixStream, roots: &[PathBuf], last: &Mutex<Call>) {
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        greeting.push(byte[0]);
    }
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
    let mut head = [0; 16];
    while stream.read_exact(&mut head).is_ok() {
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let (length, serial, fields) = (number(4) as usize, number(8), number(12) as usize);
        let mut rest = vec![0; (16 + fields).next_multiple_of(8) - 16 + length];
        stream.read_exact(&mut rest).unwrap();
        let body = rest.split_off(rest.len() - length);
        let called = |name: &[u8]| find(&rest, name).is_some();
        let unit = string(&body, 0).0;
        let slice = value(&body, "Slice").map(|at| string(&body, at).0);
        let dirs = |slice: &str| -> Vec<PathBuf> {
            roots.iter().map(|root| root.join(slice).join(&unit)).collect()
        };
        // The test has one slice.
        let existing = || -> Vec<PathBuf> {
            let slices = roots.iter().flat_map(|root| fs::read_dir(root).unwrap().flatten());
            let units = slices.map(|slice| slice.path().join(&unit));
            let ours = format!("sysboxhybrid{}.slice", std::process::id());
            units.filter(|dir| dir.is_dir() && dir.parent().unwrap().ends_with(&ours)).collect()
        };
        if called(b"StartTransientUnit") {
            let at = value(&body, "PIDs").unwrap();
            let pid = u32::from_le_bytes(body[at + 4..at + 8].try_into().unwrap());
            for dir in dirs(&slice.unwrap()) {
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
            }
            *last.lock().unwrap() = Call { body, frozen: false };
            job(&mut stream, serial, &unit);
        } else if called(b"SetUnitProperties") {
            let dir = existing().swap_remove(0);
            let frozen = fs::read_to_string(dir.join("cgroup.freeze")).unwrap() == "1\n";
            *last.lock().unwrap() = Call { body, frozen };
            stream.write_all(&message(2, Some(serial), &[], "", &[])).unwrap();
        } else if called(b"StopUnit") && existing().is_empty() {
            let error = [(4, "s", "org.freedesktop.systemd1.NoSuchUnit")];
            stream.write_all(&message(3, Some(serial), &error, "", &[])).unwrap();
        } else if called(b"StopUnit") {
            for dir in existing() {
                until("the unit is empty", || fs::remove_dir(&dir).is_ok());
            }
            job(&mut stream, serial, &unit);
        } else {
            stream.write_all(&message(2, Some(serial), &[], "", &[])).unwrap();
        }
    }
}

/// Answers with a job, which is done at once.
fn job(stream: &mut UnixStream, serial: u32, unit: &str) {
    const PATH: &str = "/org/freedesktop/systemd1/job/1";
    let mut body = Vec::new();
    put_string(&mut body, PATH);
    stream.write_all(&message(2, Some(serial), &[], "o", &body)).unwrap();
    let mut body = 1_u32.to_le_bytes().to_vec();
    for text in [PATH, unit, "done"] {
        put_string(&mut body, text);
    }
    let fields = [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", "JobRemoved"),
    ];
    stream.write_all(&message(4, None, &fields, "uoss", &body)).unwrap();
}

/// A message of the kind, with header fields (number, type, text).
fn message(
    kind: u8,
    reply_to: Option<u32>,
    fields: &[(u8, &str, &str)],
    signature: &str,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![b'l', kind, 0, 1];
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    for (number, kind, text) in fields {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([*number, 1, kind.as_bytes()[0], 0]);
        put_string(&mut bytes, text);
    }
    if let Some(serial) = reply_to {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([5, 1, b'u', 0]);
        bytes.extend(serial.to_le_bytes());
    }
    if !signature.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([8, 1, b'g', 0, signature.len() as u8]);
        bytes.extend(signature.as_bytes());
        bytes.push(0);
    }
    let length = (bytes.len() - 16) as u32;
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// The string at an offset, and where it ends.
fn string(body: &[u8], at: usize) -> (String, usize) {
    if body.len() < at + 4 {
        return (String::new(), at);
    }
    let length = u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
    let text = &body[at + 4..at + 4 + length];
    (String::from_utf8_lossy(text).into_owned(), at + 4 + length + 1)
}

/// Where the value of a property begins.
fn value(body: &[u8], name: &str) -> Option<usize> {
    let mut wanted = (name.len() as u32).to_le_bytes().to_vec();
    wanted.extend(name.as_bytes());
    wanted.push(0);
    let signature = find(body, &wanted)? + wanted.len();
    Some((signature + usize::from(body[signature]) + 2).next_multiple_of(4))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
