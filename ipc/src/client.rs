//! The calls, one function each, with errors that say which daemon is meant.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::proto::{self, fs_reply, fs_request, mgr_reply, mgr_request};
use crate::{Connection, Error, paths};

/// How long a call may take before the daemon is reported as not answering.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// What a call needs that every version knows.
const FIRST: u32 = 1;
/// How long a daemon that is being restarted is waited for.
const RESTART_GRACE: Duration = Duration::from_secs(5);
/// How long its socket may be missing meanwhile.
const SOCKET_GRACE: Duration = Duration::from_secs(1);

/// What `Register` gave.
#[derive(Debug)]
pub struct Registration {
    /// ID mappings, volumes, virtualised files.
    pub reply: proto::Registered,
    /// The container's user namespace.
    pub userns: OwnedFd,
}

/// A connection to `sysbox-mgr`.
///
/// If the manager dies in the middle, the call under way is made again to the next one: every call
/// may be repeated, and a registration goes on where it was.
#[derive(Debug)]
pub struct MgrClient(RefCell<Connection>);

impl MgrClient {
    const NAME: &'static str = "sysbox-mgr";

    /// Connects; waits a few seconds for a manager that is being restarted.
    pub fn connect() -> Result<Self, Error> {
        connect(Self::NAME, &paths::mgr_socket()).map(|connection| Self(connection.into()))
    }

    /// `Register`: see the protocol file. `userns`: a user namespace that the container joins.
    pub fn register(
        &self,
        mut request: proto::Register,
        rootfs: BorrowedFd<'_>,
        userns: Option<BorrowedFd<'_>>,
    ) -> Result<Registration, Error> {
        request.join_userns = userns.is_some();
        let fds: Vec<_> = std::iter::once(rootfs).chain(userns).collect();
        let (result, mut fds) = self.call(mgr_request::Call::Register(request), &fds)?;
        match (result, fds.pop()) {
            (mgr_reply::Result::Registered(reply), Some(userns)) => {
                Ok(Registration { reply, userns })
            }
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "register" }),
        }
    }

    /// Hands over a seccomp listener; when this returns the manager serves it.
    pub fn attach_listener(
        &self,
        id: &str,
        listener: BorrowedFd<'_>,
        pidfd: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        let call = mgr_request::Call::AttachListener(proto::AttachListener { id: id.to_owned() });
        self.expect_ok(call, &[listener, pidfd], "attach_listener")
    }

    /// Makes the registration permanent, and tells what the user should know of the container.
    pub fn commit(
        &self,
        id: &str,
        init_pid: i32,
        pidfd: BorrowedFd<'_>,
        warnings: Vec<String>,
    ) -> Result<(), Error> {
        let commit = proto::Commit { id: id.to_owned(), init_pid, warnings };
        let call = mgr_request::Call::Commit(commit);
        self.expect_ok(call, &[pidfd], "commit")
    }

    /// Ends the registration; unknown ids are not an error.
    pub fn unregister(&self, id: &str) -> Result<(), Error> {
        let call = mgr_request::Call::Unregister(proto::Unregister { id: id.to_owned() });
        self.expect_ok(call, &[], "unregister")
    }

    /// Says that the container is frozen: what an engine may read of it now is made complete.
    pub fn paused(&self, id: &str) -> Result<(), Error> {
        let call = mgr_request::Call::Paused(proto::Paused { id: id.to_owned() });
        self.expect_ok(call, &[], "paused")
    }

    /// What the manager holds.
    pub fn status(&self) -> Result<proto::MgrStatus, Error> {
        match self.call(mgr_request::Call::Status(proto::Empty {}), &[])?.0 {
            mgr_reply::Result::Status(status) => Ok(status),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "status" }),
        }
    }

    fn expect_ok(
        &self,
        call: mgr_request::Call,
        fds: &[BorrowedFd<'_>],
        name: &'static str,
    ) -> Result<(), Error> {
        match self.call(call, fds)?.0 {
            mgr_reply::Result::Ok(_) => Ok(()),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: name }),
        }
    }

    fn call(
        &self,
        call: mgr_request::Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(mgr_reply::Result, Vec<OwnedFd>), Error> {
        let request = proto::MgrRequest { protocol: FIRST, call: Some(call) };
        let mut deadline = Instant::now() + RESTART_GRACE;
        let (reply, fds): (proto::MgrReply, _) = loop {
            let mut answer = exchange(Self::NAME, &self.0.borrow(), &request, fds);
            // As long as it says that it works on it, it is waited for.
            while let Ok((proto::MgrReply { result: Some(WORKING) }, _)) = answer {
                deadline = Instant::now() + RESTART_GRACE;
                answer = receive(Self::NAME, &self.0.borrow());
            }
            match answer {
                Err(e) if e.is_disconnect() && Instant::now() < deadline => {}
                done => break done?,
            }
            let connection = connect(Self::NAME, &paths::mgr_socket())?;
            self.0.replace(connection);
        };
        match reply.result {
            Some(mgr_reply::Result::Error(e)) => Err(refused(Self::NAME, e)),
            Some(result) => Ok((result, fds)),
            None => Err(Error::Unexpected { daemon: Self::NAME, call: "a call" }),
        }
    }
}

/// A connection to `sysbox-fs`. A call that breaks because the daemon dies is made again.
#[derive(Debug)]
pub struct FsClient {
    connection: RefCell<Connection>,
    socket: PathBuf,
}

impl FsClient {
    const NAME: &'static str = "sysbox-fs";

    /// Connects; waits a few seconds for a daemon that is being restarted.
    pub fn connect() -> Result<Self, Error> {
        Self::connect_at(&paths::fs_socket())
    }

    /// Connects to a socket at another place than the usual.
    pub fn connect_at(socket: &Path) -> Result<Self, Error> {
        let connection = connect(Self::NAME, socket)?.into();
        Ok(Self { connection, socket: socket.to_owned() })
    }

    /// `AddContainer`: see the protocol file.
    pub fn add_container(&self, request: proto::AddContainer) -> Result<proto::Added, Error> {
        match self.call(fs_request::Call::AddContainer(request))? {
            fs_reply::Result::Added(added) => Ok(added),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "add_container" }),
        }
    }

    /// Forgets a container; unknown ids are not an error.
    pub fn remove_container(&self, id: &str) -> Result<(), Error> {
        let call = proto::RemoveContainer { id: id.to_owned() };
        match self.call(fs_request::Call::RemoveContainer(call))? {
            fs_reply::Result::Ok(_) => Ok(()),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "remove_container" }),
        }
    }

    /// What sysinfo(2) should say to a thread of a container.
    pub fn sysinfo(&self, id: &str, tid: u32) -> Result<proto::Sysinfo, Error> {
        let call = proto::AskSysinfo { id: id.to_owned(), tid };
        match self.call(fs_request::Call::Sysinfo(call))? {
            fs_reply::Result::Sysinfo(sysinfo) => Ok(sysinfo),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "sysinfo" }),
        }
    }

    /// Changes the level of the daemon's log.
    ///
    /// # Errors
    /// It is no level; the daemon is older than this call.
    pub fn set_log_level(&self, level: &str) -> Result<(), Error> {
        let call = proto::SetLogLevel { level: level.to_owned() };
        match self.call(fs_request::Call::SetLogLevel(call))? {
            fs_reply::Result::Ok(_) => Ok(()),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "set_log_level" }),
        }
    }

    /// What the daemon serves.
    pub fn status(&self) -> Result<proto::FsStatus, Error> {
        match self.call(fs_request::Call::Status(proto::Empty {}))? {
            fs_reply::Result::Status(status) => Ok(status),
            _ => Err(Error::Unexpected { daemon: Self::NAME, call: "status" }),
        }
    }

    fn call(&self, call: fs_request::Call) -> Result<fs_reply::Result, Error> {
        let protocol = match &call {
            fs_request::Call::SetLogLevel(_) | fs_request::Call::Sysinfo(_) => 2,
            _ => FIRST,
        };
        let request = proto::FsRequest { protocol, call: Some(call) };
        let deadline = Instant::now() + RESTART_GRACE;
        let (reply, _): (proto::FsReply, _) = loop {
            match exchange(Self::NAME, &self.connection.borrow(), &request, &[]) {
                Err(e) if e.is_disconnect() && Instant::now() < deadline => {}
                done => break done?,
            }
            let connection = connect(Self::NAME, &self.socket)?;
            self.connection.replace(connection);
        };
        match reply.result {
            Some(fs_reply::Result::Error(e)) => Err(refused(Self::NAME, e)),
            Some(result) => Ok(result),
            None => Err(Error::Unexpected { daemon: Self::NAME, call: "a call" }),
        }
    }
}

fn connect(daemon: &'static str, path: &Path) -> Result<Connection, Error> {
    let start = Instant::now();
    loop {
        match Connection::connect(path) {
            Ok(connection) => {
                connection.set_timeout(Some(CALL_TIMEOUT)).map_err(|source| Error::Io {
                    daemon,
                    what: "setting a timeout",
                    source,
                })?;
                return Ok(connection);
            }
            // A socket that refuses belongs to a daemon that died or is being restarted: wait a
            // little. No socket at all: it was never started, so say so at once, unless its pid file
            // tells that it was; then it is just about to make its socket anew.
            Err(e) if start.elapsed() < patience(path, e.kind()) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(source) => {
                let path = path.display().to_string();
                return Err(Error::NotRunning { daemon, path, source });
            }
        }
    }
}

fn patience(socket: &Path, error: ErrorKind) -> Duration {
    match error {
        ErrorKind::ConnectionRefused => RESTART_GRACE,
        ErrorKind::NotFound if socket.with_extension("pid").exists() => SOCKET_GRACE,
        _ => Duration::ZERO,
    }
}

fn exchange<Q: prost::Message, R: prost::Message + Default>(
    daemon: &'static str,
    connection: &Connection,
    request: &Q,
    fds: &[BorrowedFd<'_>],
) -> Result<(R, Vec<OwnedFd>), Error> {
    let sent = connection.send(request, fds);
    sent.map_err(|source| Error::Io { daemon, what: "sending a request", source })?;
    receive(daemon, connection)
}

fn receive<R: prost::Message + Default>(
    daemon: &'static str,
    connection: &Connection,
) -> Result<(R, Vec<OwnedFd>), Error> {
    let failed = |source| Error::Io { daemon, what: "waiting for its answer", source };
    match connection.receive::<R>().map_err(failed)? {
        Some(incoming) => Ok((incoming.message, incoming.fds)),
        None => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// What the manager says at intervals while an answer takes long.
const WORKING: mgr_reply::Result = mgr_reply::Result::Working(proto::Empty {});

fn refused(daemon: &'static str, error: proto::Error) -> Error {
    Error::Refused { daemon, message: error.message, remedy: error.remedy }
}
