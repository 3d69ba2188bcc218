//! `sysbox-mgr`: the service that knows every system container of the host.
//!
//! The runtime (`sysbox-runc`) is short-lived and each of its processes sees one container. What
//! needs a view over all containers, or must outlive the runtime, is here:
//!
//! | module | job |
//! |---|---|
//! | [`ids`] | exclusive ranges of host ids out of /etc/subuid and /etc/subgid |
//! | [`registry`] | the containers and their state, one file each, so that a restart forgets nothing |
//! | [`volumes`] | directories for the stores of inner engines (`/var/lib/docker` and the like) |
//! | [`coherence`] | keeps the engine's view of the root file system (`docker cp`) up to date |
//! | [`broker`] | answers the mount calls that the kernel refuses inside (seccomp notify) |
//! | [`api`] | gRPC and Prometheus metrics for people and tools |
//! | [`manager`] | what a registration is: ties the rooms above together |
//!
//! The server (`server/`) speaks the protocol of `sysbox.proto` with the runtime, one thread a
//! connection: calls are few and short, and a blocking thread is easy to read. `fs_link` talks to
//! `sysbox-fs`, `kept` has listeners outlive the manager, `leftovers` removes what a runtime that was killed left behind,
//! `quick_moves` spares `start` a wait.
//!
//! Rules that hold everywhere:
//! - state is on disk before it is acted upon, and whatever a live container uses is never taken
//!   away, not even when the manager stops;
//! - no lock is held over a call that can enter a container's file systems or take long;
//! - the rootfs and all that is in it is hostile: it is reached by descriptors, never by a path that
//!   is followed twice.

pub mod api;
pub mod broker;
pub mod coherence;
pub mod ids;
pub mod manager;
pub mod registry;
pub mod volumes;

mod close;
mod daemon;
mod error;
mod events;
mod fs_link;
mod kept;
mod leftovers;
mod metrics;
mod options;
mod quick_moves;
mod server;
mod sync;

pub use daemon::run;
pub use error::Error;
pub use options::Options;
