//! `sysbox-fs`: the files of `/proc` and `/sys` that tell a container of itself instead of the host.
//!
//! One FUSE file system holds a directory for each container, `<key>/proc/...` and `<key>/sys/...`;
//! the runtime mounts its files one by one over the kernel's own. From the request to the text:
//!
//! - [`session`]: the file system and its survival of this process;
//! - [`table`]: every file, what it means, and who makes its text;
//! - [`settings`]: what a container wrote to settings of the host;
//! - [`render`]: numbers in the kernel's text format;
//! - [`triggers`]: waking those who wait for pressure;
//! - [`view`]: numbers of a container, as one reader sees them, from its cgroup;
//! - [`containers`], [`container`], [`state`]: what is served, in memory and on disk;
//! - [`serve`], [`daemon`], [`sandbox`], [`instance`]: the process itself.

pub mod container;
pub mod containers;
pub mod daemon;
pub mod render;
pub mod sandbox;
pub mod serve;
pub mod session;
pub mod settings;
pub mod state;
pub mod table;
pub mod triggers;
pub mod view;
