//! The kernel interfaces of the system-container runtime.
//!
//! All `unsafe` code of the workspace lives here. Each module wraps one family of system calls that
//! `rustix` lacks (or re-exports what it has) behind functions that take and return owned file
//! descriptors and `io::Result`; policy belongs to the callers.

pub mod bpf;
pub mod features;
pub mod fuse;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod mount_table;
pub mod notify;
pub mod ns;
pub mod process;
pub mod schedule;
pub mod seccomp;
