//! Control groups of system containers: version 2 first, version 1 by table.
//!
//! A container has one directory in every hierarchy of the host, named by `linux.cgroupsPath`.
//! Limits are set there by host root. On the unified (v2) hierarchy that same directory is the root
//! of the container's cgroup namespace and is *delegated*: container root owns the directory and the
//! few files with which processes are moved and controllers are switched on, and nothing else, so it
//! can build its own tree below while the limits above stay out of reach.
//!
//! ```text
//! pure v2 host                        hybrid host
//! /sys/fs/cgroup/docker/ID            /sys/fs/cgroup/{cpu,memory,...}/docker/ID   limits, processes
//!   memory.max, cpu.max, ...            (not visible inside)
//!   init.scope/   PID 1 of the        /sys/fs/cgroup/unified/docker/ID            what is seen inside
//!   system.slice/ container             init.scope/ system.slice/ ...
//! ```
//!
//! The life of a container's cgroup, in the order in which the runtime calls:
//!
//! 1. [`Layout::detect`] says which hierarchies this host has and where;
//! 2. [`Cgroup::plan`] turns `cgroupsPath` into directories (pure);
//! 3. [`Cgroup::create_with`], [`Cgroup::apply`], [`Cgroup::delegate`], then [`Cgroup::entrance`] (a
//!    new process enters by itself, which is fast) or [`Cgroup::attach`] (any process is moved);
//! 4. [`Cgroup::attach_exec`], [`Cgroup::freeze`], [`Cgroup::update`], ... while it lives; a
//!    [`Cgroup`] is kept in the runtime's state file, so a later command finds the same directories;
//! 5. [`Cgroup::kill_all`] and [`Cgroup::remove`].
//!
//! Everything below a delegated directory is made by the container: names, depth and number of
//! groups are hostile input. Trees are therefore walked by directory descriptors (a path can be made
//! longer than the kernel accepts), without recursion, and with a bounded number of descriptors.

mod apply;
mod cgroup;
mod create;
mod delegate;
mod devices;
mod entrance;
mod error;
mod file;
mod freezer;
mod layout;
mod path;
mod procs;
pub mod rdt;
mod remove;
pub mod stats;
mod switches;
mod systemd;
mod tree;

pub use cgroup::{Cgroup, Driver, Hierarchy};
pub use devices::{CharDevice, FUSE, TUN, allows_all_devices, device_rules};
pub use entrance::Entrance;
pub use error::{Error, Result};
pub use layout::{Layout, Mount};
pub use stats::Stats;
pub use systemd::Placeholder;
