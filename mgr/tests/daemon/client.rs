//! The runtime's end of the protocol, on any socket path.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sysbox_ipc::proto::{self, mgr_reply::Result as Reply, mgr_request::Call};
use sysbox_ipc::{Connection, PROTOCOL};

/// A connection of a runtime.
pub struct Client(Connection);

impl Client {
    pub fn connect(socket: &Path) -> Self {
        Self(Connection::connect(socket).expect("connecting to the daemon"))
    }

    pub fn call(
        &self,
        call: Call,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), String> {
        let request = proto::MgrRequest { protocol: PROTOCOL, call: Some(call) };
        self.0.send(&request, fds).map_err(|e| e.to_string())?;
        let mut answer = self.0.receive::<proto::MgrReply>().map_err(|e| e.to_string())?;
        while answer.as_ref().is_some_and(|a| matches!(a.message.result, Some(Reply::Working(_)))) {
            answer = self.0.receive().map_err(|e| e.to_string())?;
        }
        let answer = answer.ok_or("the daemon closed the connection")?;
        match answer.message.result {
            Some(Reply::Error(e)) => Err(format!("{} ({})", e.message, e.remedy)),
            Some(reply) => Ok((reply, answer.fds)),
            None => Err("an empty answer".into()),
        }
    }

    pub fn register(
        &self,
        request: &proto::Register,
    ) -> Result<(proto::Registered, OwnedFd), String> {
        self.register_in(request, None)
    }

    /// With a user namespace that the container joins.
    pub fn register_in(
        &self,
        request: &proto::Register,
        joined: Option<BorrowedFd<'_>>,
    ) -> Result<(proto::Registered, OwnedFd), String> {
        let request = proto::Register { join_userns: joined.is_some(), ..request.clone() };
        let rootfs =
            rustix::fs::open(&request.rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .unwrap();
        let fds: Vec<_> = std::iter::once(rootfs.as_fd()).chain(joined).collect();
        match self.call(Call::Register(request), &fds)? {
            (Reply::Registered(registered), mut fds) => Ok((registered, fds.remove(0))),
            other => panic!("{other:?}"),
        }
    }

    pub fn commit(&self, id: &str, pid: u32) -> Result<(), String> {
        self.commit_with(id, pid, &[])
    }

    pub fn commit_with(&self, id: &str, pid: u32, warnings: &[&str]) -> Result<(), String> {
        let init_pid = pid as i32;
        let warnings = warnings.iter().map(|&text| text.to_owned()).collect();
        let pidfd = pidfd_open(Pid::from_raw(init_pid).unwrap(), PidfdFlags::empty()).unwrap();
        let call = Call::Commit(proto::Commit { id: id.into(), init_pid, warnings });
        self.call(call, &[pidfd.as_fd()]).map(drop)
    }

    pub fn unregister(&self, id: &str) -> Result<(), String> {
        self.call(Call::Unregister(proto::Unregister { id: id.into() }), &[]).map(drop)
    }

    pub fn paused(&self, id: &str) -> Result<(), String> {
        self.call(Call::Paused(proto::Paused { id: id.into() }), &[]).map(drop)
    }

    pub fn status(&self) -> proto::MgrStatus {
        match self.call(Call::Status(proto::Empty {}), &[]).unwrap().0 {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}
