//! One end of a record socket, and the listening side of it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use prost::Message;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

/// Largest record that is sent or accepted, in bytes.
const MAX_RECORD: usize = 256 * 1024;
/// Most descriptors in one record.
const MAX_FDS: usize = 16;

/// A connected record socket.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

/// A received record.
#[derive(Debug)]
pub struct Incoming<M> {
    /// The message.
    pub message: M,
    /// Its descriptors, in the order that the message documents; all close-on-exec.
    pub fds: Vec<OwnedFd>,
}

impl Connection {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket })
    }

    /// Bounds every later send and receive; `None` waits for ever.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, timeout)?;
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, timeout)?;
        Ok(())
    }

    /// Sends one message with descriptors.
    pub fn send<M: Message>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > MAX_RECORD || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is too large"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        Ok(())
    }

    /// Receives one message; `None` when the peer has closed the connection.
    pub fn receive<M: Message + Default>(&self) -> io::Result<Option<Incoming<M>>> {
        let mut bytes = vec![0; MAX_RECORD];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "record is too large"));
        }
        // An empty record is never sent: every message of ours has at least one field set.
        if received.bytes == 0 {
            return Ok(None);
        }
        let message = M::decode(&bytes[..received.bytes])
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(Some(Incoming { message, fds }))
    }

    /// The peer's user id (SO_PEERCRED).
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.socket)?.uid.as_raw())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

/// The listening side.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// Binds `path`, replacing a stale socket (the caller has made sure that nobody serves it),
    /// with mode 0600.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = new_socket()?;
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 1024)?;
        Ok(Self { socket })
    }

    /// Waits for a connection and refuses (closes) those of other users than root.
    pub fn accept(&self) -> io::Result<Connection> {
        loop {
            let socket = rustix::io::retry_on_intr(|| {
                rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC)
            })?;
            let connection = Connection { socket };
            if connection.peer_uid()? == 0 {
                return Ok(connection);
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{MgrRequest, Unregister, mgr_request::Call};

    #[test]
    fn a_message_arrives_with_its_descriptor() {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let (a, b) = (Connection::from(a), Connection::from(b));
        let call = Call::Unregister(Unregister { id: "x".into() });
        let request = MgrRequest { protocol: crate::PROTOCOL, call: Some(call) };
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&request, &[null.as_fd()]).unwrap();
        let got = b.receive::<MgrRequest>().unwrap().unwrap();
        assert_eq!(got.message, request);
        assert_eq!(got.fds.len(), 1);
        drop(a);
        assert!(b.receive::<MgrRequest>().unwrap().is_none());
    }
}
