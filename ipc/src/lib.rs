//! How `sysbox-runc`, `sysbox-mgr` and `sysbox-fs` talk: protobuf messages, one per
//! `SOCK_SEQPACKET` record, with file descriptors as `SCM_RIGHTS`.
//!
//! gRPC cannot carry file descriptors, and a blocking record socket costs the short-lived runtime
//! a third of what a gRPC client does; so this is the protocol between our own parts.

mod client;
mod connection;
pub mod crash;
pub mod paths;
pub mod store;

pub use client::{FsClient, MgrClient, Registration};
pub use connection::{Connection, Incoming, Listener};

/// The messages, generated from `proto/sysbox.proto`.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/sysbox.v1.rs"));
}

/// Version of the protocol that this build speaks. A request says which version its call needs; one
/// that needs a higher one than this is refused.
pub const PROTOCOL: u32 = 2;

/// Why a call to a daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens on the socket.
    #[error(
        "{daemon} is not running (no one listens on {path}: {source}); start it with `systemctl start {daemon}` or run `{daemon}` as root"
    )]
    NotRunning {
        /// Name of the daemon.
        daemon: &'static str,
        /// Its socket.
        path: String,
        /// What connect(2) said.
        source: std::io::Error,
    },
    /// The connection broke or timed out in the middle.
    #[error("talking to {daemon}: {what}: {source}")]
    Io {
        /// Name of the daemon.
        daemon: &'static str,
        /// What was being done.
        what: &'static str,
        /// What the system call said.
        source: std::io::Error,
    },
    /// The daemon answered with an error of its own.
    #[error("{daemon}: {message}{}", if remedy.is_empty() { String::new() } else { format!(" ({remedy})") })]
    Refused {
        /// Name of the daemon.
        daemon: &'static str,
        /// What it said.
        message: String,
        /// What it advises.
        remedy: String,
    },
    /// The daemon answered with something that this version does not understand.
    #[error("{daemon} sent an unexpected answer to {call}; are both of the same release?")]
    Unexpected {
        /// Name of the daemon.
        daemon: &'static str,
        /// The call that was made.
        call: &'static str,
    },
}

impl Error {
    /// Whether the daemon went away in the middle of a call.
    fn is_disconnect(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
        let gone = [BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof];
        matches!(self, Self::Io { source, .. } if gone.contains(&source.kind()))
    }
}
