//! What the end-to-end tests share: commands with deadlines, containers that are removed when a test
//! ends, conditions to wait for, and a look at what a container leaves on the host.
//!
//! The tests run inside a *world* (`scripts/world`): a private Docker engine, `sysbox-mgr` and
//! `sysbox-fs` in their own mount and network namespace. `scripts/test` makes it and starts the tests
//! in it; [`World`] tells them where things are. They work in either cgroup view.
//!
//! Nothing here returns errors: a test that cannot go on panics, and the message holds all that the
//! failed command printed.

mod command;
mod container;
pub mod cri;
pub mod daemons;
mod engine;
mod host;
mod idmap;
mod running;
mod wait;
mod world;

pub use command::{Cmd, Output};
pub use container::{Container, Running};
pub use daemons::sysbox;
pub use engine::{Engine, Feature, Stats};
pub use host::Snapshot;
pub use idmap::{IdRange, id_range};
pub use wait::{patient, wait_until};
pub use world::{BOOKWORM, BUSYBOX, ENGINES, TRIXIE, World, alone, cannot_run, shared};
