//! A blocking connection to systemd, by which methods of its manager are called.
//!
//! systemd listens for root on a socket of its own, which works without a bus daemon and early at boot;
//! where that is missing the way is the system bus. The protocol is the same but for a greeting.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::message::{self, Kind, Message, Method, Writer};

/// systemd's own socket, and the one of the bus daemon.
const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// How long one answer may take. systemd answers at once unless it is being stopped or re-executed.
const ANSWER: Duration = Duration::from_secs(25);

/// Longest line of the greeting.
const LONGEST_LINE: usize = 1024;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const DAEMON: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Neither socket takes a connection.
    #[error(
        "systemd cannot be reached ({PRIVATE}: {private}; {SYSTEM_BUS}: {bus}): the runtime needs root \
         and the host's /run"
    )]
    Unreachable {
        /// Answer of systemd's own socket.
        private: io::Error,
        /// Answer of the system bus.
        bus: io::Error,
    },
    /// The connection failed.
    #[error("talking to systemd: {0}")]
    Connection(#[from] io::Error),
    /// systemd refused.
    #[error("{text} ({name})")]
    Refused {
        /// D-Bus name of the error.
        name: String,
        /// systemd's words.
        text: String,
    },
    /// It said what it should not.
    #[error("talking to systemd: {0}")]
    Protocol(&'static str),
}

impl Failure {
    /// Is this systemd's refusal of that name?
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Failure::Refused { name, .. } if name == wanted)
    }
}

/// A job of systemd's queue that has ended.
#[derive(Debug)]
struct Ended {
    path: String,
    result: String,
}

/// A connection to systemd.
#[derive(Debug)]
pub(super) struct Bus {
    socket: UnixStream,
    /// What was received and not yet looked at.
    received: Vec<u8>,
    serial: u32,
    /// Jobs that ended while something else was waited for.
    ended: VecDeque<Ended>,
}

impl Bus {
    /// Connects, so that [`Bus::wait_job`] will see the end of every job.
    pub(super) fn open() -> Result<Bus, Failure> {
        match UnixStream::connect(PRIVATE) {
            Ok(socket) => Bus::greet(socket),
            Err(private) => {
                let socket = UnixStream::connect(SYSTEM_BUS)
                    .map_err(|bus| Failure::Unreachable { private, bus })?;
                Bus::open_system(socket)
            }
        }
    }

    /// The system bus gives a name to whom says hello, and passes only the signals that were asked for.
    fn open_system(socket: UnixStream) -> Result<Bus, Failure> {
        let mut bus = Bus::greet(socket)?;
        bus.call(Method { member: "Hello", ..DAEMON }, "", &Writer::default())?;
        let mut rule = Writer::default();
        rule.string(&format!(
            "type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"
        ));
        bus.call(Method { member: "AddMatch", ..DAEMON }, "s", &rule)?;
        bus.manager("Subscribe", "", &Writer::default())?;
        Ok(bus)
    }

    /// Says who we are; the kernel vouches for it.
    fn greet(socket: UnixStream) -> Result<Bus, Failure> {
        socket.set_write_timeout(Some(ANSWER))?;
        let mut bus = Bus { socket, received: Vec::new(), serial: 0, ended: VecDeque::new() };
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        // In one write, and nothing after it before the answer is there. A message that systemd reads
        // together with BEGIN stays in its buffer until more comes (sd-bus waits for the socket).
        bus.socket.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let deadline = Instant::now() + ANSWER;
        let end = loop {
            if let Some(end) = bus.received.windows(2).position(|bytes| bytes == b"\r\n") {
                break end;
            }
            if bus.received.len() > LONGEST_LINE {
                return Err(Failure::Protocol("the answer to AUTH has no end"));
            }
            bus.receive_more(deadline)?;
        };
        let line: Vec<u8> = bus.received.drain(..end + 2).collect();
        if !line.starts_with(b"OK ") {
            return Err(Failure::Protocol("it does not accept our user id (AUTH EXTERNAL)"));
        }
        Ok(bus)
    }

    /// Calls a method of systemd's manager and gives its answer.
    pub(super) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        arguments: &Writer,
    ) -> Result<Message, Failure> {
        let (destination, path, interface) = (SYSTEMD, MANAGER_PATH, MANAGER);
        self.call(Method { destination, path, interface, member }, signature, arguments)
    }

    fn call(
        &mut self,
        method: Method<'_>,
        signature: &str,
        arguments: &Writer,
    ) -> Result<Message, Failure> {
        self.serial += 1;
        self.socket.write_all(&method.call(self.serial, signature, arguments))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let message = self.receive(deadline)?;
            if message.reply_to != Some(self.serial) {
                self.ended.extend(ended(&message));
                continue;
            }
            match message.kind {
                Kind::Return => return Ok(message),
                Kind::Error => {
                    let text = message.signature.starts_with('s');
                    let text = text.then(|| message.arguments().string()).flatten();
                    let name = message.error_name;
                    return Err(Failure::Refused { name, text: text.unwrap_or_default() });
                }
                Kind::Call | Kind::Signal => {}
            }
        }
    }

    /// Waits for the end of the job at object `path` and gives its result, `done` if all went well.
    pub(super) fn wait_job(&mut self, path: &str, deadline: Instant) -> Result<String, Failure> {
        loop {
            while let Some(job) = self.ended.pop_front() {
                if job.path == path {
                    return Ok(job.result);
                }
            }
            let message = self.receive(deadline)?;
            self.ended.extend(ended(&message));
        }
    }

    /// The next message.
    fn receive(&mut self, deadline: Instant) -> Result<Message, Failure> {
        loop {
            if let Some(start) = self.received.first_chunk() {
                let length = message::length(start);
                let length = length.ok_or(Failure::Protocol("it has sent what is no message"))?;
                if self.received.len() >= length {
                    let bytes: Vec<u8> = self.received.drain(..length).collect();
                    let message = Message::parse(&bytes);
                    return message.ok_or(Failure::Protocol("it has sent a malformed message"));
                }
            }
            self.receive_more(deadline)?;
        }
    }

    /// Waits for more bytes.
    fn receive_more(&mut self, deadline: Instant) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.received.extend(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Is the time up (which is looked at again), or did a signal come?
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// `JobRemoved(u id, o job, s unit, s result)`
fn ended(message: &Message) -> Option<Ended> {
    let is_end = message.kind == Kind::Signal
        && message.interface == MANAGER
        && message.member == "JobRemoved"
        && message.signature == "uoss";
    if !is_end {
        return None;
    }
    let mut arguments = message.arguments();
    arguments.u32()?;
    let path = arguments.string()?;
    arguments.string()?;
    Some(Ended { path, result: arguments.string()? })
}
