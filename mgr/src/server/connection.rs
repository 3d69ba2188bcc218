//! One connection: calls in, answers out, and the transaction that is tied to it.
//!
//! A registration belongs to its connection until Commit. However the runtime ends (an error, a
//! signal, the machine out of memory), the kernel closes the socket, and what was registered is taken
//! back. So no runtime can leave half a container behind.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use sysbox_ipc::proto::{self, mgr_reply, mgr_request::Call};
use sysbox_ipc::{Connection, PROTOCOL};

use super::{Shared, peer::Peer};
use crate::error::{Error, Result};
use crate::manager::{Manager, Runtime};
use crate::metrics;
use crate::quick_moves;
use crate::registry::process;

/// How long an idle connection without a transaction is kept.
const IDLE: Duration = Duration::from_secs(60);

/// Interval at which a runtime is told that its call is being worked on.
const WORKING: Duration = Duration::from_secs(15);

/// The registration that this connection has not committed yet.
struct Transaction<'a> {
    manager: &'a Manager,
    shared: &'a Shared,
    id: String,
}

impl<'a> Transaction<'a> {
    /// Opens a transaction; from now on a stop of the daemon waits for it.
    fn open(manager: &'a Manager, shared: &'a Shared, id: &str) -> Result<Self> {
        shared.open.fetch_add(1, Ordering::SeqCst);
        let transaction = Self { manager, shared, id: id.to_owned() };
        // Looked at after counting, so that `stop` either waits for us or is seen by us.
        if shared.stopping.load(Ordering::SeqCst) {
            return Err(
                Error::new("sysbox-mgr is being stopped").remedy("try again when it is back")
            );
        }
        Ok(transaction)
    }

    fn roll_back(self, runtime: Runtime) {
        self.manager.roll_back(&self.id, runtime);
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves a connection until the peer closes it.
pub(super) fn serve(manager: &Manager, shared: &Shared, connection: Connection) {
    let peer = Peer::of(&connection);
    let mut session = Session { manager, shared, peer, transaction: None };
    if let Err(e) = session.run(&connection) {
        tracing::debug!("a connection of the runtime ended: {e}");
    }
    // The peer must see at once that it is over, even if waiting for its end takes a while.
    drop(connection);
    if let Some(transaction) = session.transaction.take() {
        let runtime = session.peer.fate();
        transaction.roll_back(runtime);
    }
}

struct Session<'a> {
    manager: &'a Manager,
    shared: &'a Shared,
    peer: Peer,
    transaction: Option<Transaction<'a>>,
}

/// An answer and the descriptors that go with it.
type Answer = (mgr_reply::Result, Option<OwnedFd>);

impl Session<'_> {
    fn run(&mut self, connection: &Connection) -> std::io::Result<()> {
        loop {
            // A `create` may take as long as it needs, for example in a hook.
            let timeout = if self.transaction.is_some() { None } else { Some(IDLE) };
            connection.set_timeout(timeout)?;
            let Some(incoming) = connection.receive::<proto::MgrRequest>()? else {
                return Ok(());
            };
            let may_take_long = matches!(
                incoming.message.call,
                Some(Call::Register(_) | Call::Unregister(_) | Call::Paused(_))
            );
            let answer = || {
                self.answer(incoming.message, incoming.fds)
                    .unwrap_or_else(|e| (mgr_reply::Result::Error(e.into()), None))
            };
            let (result, fd) =
                if may_take_long { while_telling(connection, WORKING, answer) } else { answer() };
            if let mgr_reply::Result::Error(e) = &result {
                metrics::REFUSED.increment();
                tracing::warn!("refused: {} {}", e.message, e.remedy);
            }
            let reply = proto::MgrReply { result: Some(result) };
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
            connection.send(&reply, &fds)?;
        }
    }

    fn answer(&mut self, request: proto::MgrRequest, fds: Vec<OwnedFd>) -> Result<Answer> {
        if request.protocol > PROTOCOL {
            return Err(Error::new(format!(
                "the runtime speaks protocol {}, sysbox-mgr only up to {PROTOCOL}",
                request.protocol
            ))
            .remedy("restart sysbox-mgr after an upgrade"));
        }
        match request.call {
            Some(Call::Register(_)) => self.shared.quick_moves.keep_for(quick_moves::CREATING),
            Some(Call::Commit(_)) => self.shared.quick_moves.keep_for(quick_moves::CREATED),
            _ => {}
        }
        let ok = || (mgr_reply::Result::Ok(proto::Empty {}), None);
        match request.call {
            Some(Call::Register(call)) => self.register(call, fds),
            Some(Call::AttachListener(call)) => {
                let [listener, pidfd] = take(fds, "attach_listener")?;
                self.resume(&call.id, process::pid_of(pidfd.as_fd()).unwrap_or_default())?;
                self.manager.attach_listener(&call.id, listener, pidfd).map(|()| ok())
            }
            Some(Call::Commit(call)) => {
                let [pidfd] = take(fds, "commit")?;
                self.commit(&call, pidfd).map(|()| ok())
            }
            Some(Call::Unregister(call)) => self.unregister(&call.id).map(|()| ok()),
            Some(Call::Paused(call)) => {
                self.manager.paused(&call.id);
                Ok(ok())
            }
            Some(Call::Status(_)) => Ok((mgr_reply::Result::Status(self.manager.status()), None)),
            None => Err(Error::new("sysbox-mgr does not know this call")
                .remedy("are the runtime and sysbox-mgr of the same release?")),
        }
    }

    fn register(&mut self, call: proto::Register, fds: Vec<OwnedFd>) -> Result<Answer> {
        let (rootfs, joined) = if call.join_userns {
            let [rootfs, userns] = take(fds, "register")?;
            (rootfs, Some(userns))
        } else {
            let [rootfs] = take(fds, "register")?;
            (rootfs, None)
        };
        if let Some(open) = &self.transaction {
            return Err(Error::new(format!(
                "registering container {}: this connection is creating {}",
                call.id, open.id
            )));
        }
        let transaction = Transaction::open(self.manager, self.shared, &call.id)?;
        let begun = Instant::now();
        let done = self.manager.register(call, rootfs, joined, self.peer.process())?;
        metrics::REGISTER.observe(begun.elapsed());
        self.transaction = Some(transaction);
        Ok((mgr_reply::Result::Registered(done.reply), Some(done.userns)))
    }

    /// A runtime whose last connection broke with the last manager goes on with its registration.
    fn resume(&mut self, id: &str, pid: i32) -> Result<()> {
        if self.transaction.is_some() || !self.manager.adopt(id, self.peer.process()) {
            return Ok(());
        }
        tracing::info!(container = id, "its runtime is back; its creation goes on");
        // Even if this fails: it is this connection that must take the registration back.
        let transaction = Transaction::open(self.manager, self.shared, id);
        let resumed = self.manager.resume(id, pid);
        self.transaction = Some(transaction?);
        resumed
    }

    fn commit(&mut self, call: &proto::Commit, pidfd: OwnedFd) -> Result<()> {
        self.resume(&call.id, call.init_pid)?;
        if self.transaction.is_none() && self.manager.is_committed(&call.id, call.init_pid) {
            return Ok(());
        }
        if self.transaction.as_ref().is_none_or(|t| t.id != call.id) {
            let id = &call.id;
            return Err(Error::new(format!(
                "committing container {id}: this connection has not registered it"
            )));
        }
        self.manager.commit(&call.id, call.init_pid, pidfd)?;
        for warning in &call.warnings {
            self.manager.warned(&call.id, warning);
        }
        self.transaction = None;
        Ok(())
    }

    fn unregister(&mut self, id: &str) -> Result<()> {
        match self.transaction.take_if(|t| t.id == id) {
            Some(transaction) => {
                transaction.roll_back(Runtime::Alive);
                Ok(())
            }
            None => self.manager.unregister(id),
        }
    }
}

/// Does `work` and tells the runtime at intervals that it goes on: stores with many inner images take
/// their time, and the runtime gives up when it hears nothing.
fn while_telling<T>(connection: &Connection, every: Duration, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let tell = move || {
            while waiting.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let working = mgr_reply::Result::Working(proto::Empty {});
                if connection.send(&proto::MgrReply { result: Some(working) }, &[]).is_err() {
                    return;
                }
            }
        };
        // Without the thread it is done all the same.
        let _ = std::thread::Builder::new().name("working".into()).spawn_scoped(scope, tell);
        let result = work();
        drop(done);
        result
    })
}

/// The descriptors that a call must come with.
fn take<const N: usize>(fds: Vec<OwnedFd>, call: &str) -> Result<[OwnedFd; N]> {
    let got = fds.len();
    fds.try_into().map_err(|_| {
        Error::new(format!("{call} needs {N} descriptors, and {got} came"))
            .remedy("are the runtime and sysbox-mgr of the same release?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_takes_long_is_not_silent() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let kind = SocketType::SEQPACKET;
        let pair = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let (ours, theirs) = (Connection::from(pair.0), Connection::from(pair.1));
        let (heard, told) = std::sync::mpsc::channel();
        let runtime = std::thread::spawn(move || {
            for _ in 0..3 {
                let reply = theirs.receive::<proto::MgrReply>().unwrap().unwrap().message;
                assert!(matches!(reply.result, Some(mgr_reply::Result::Working(_))), "{reply:?}");
            }
            heard.send(()).unwrap();
            theirs
        });
        let done = while_telling(&ours, Duration::from_millis(5), || told.recv());
        done.unwrap();
        drop(runtime.join().unwrap());
        // Whoever has gone away is no reason to stop in the middle.
        let one = while_telling(&ours, Duration::from_millis(1), || {
            std::thread::sleep(Duration::from_millis(20));
            1
        });
        assert_eq!(one, 1);
    }
}
