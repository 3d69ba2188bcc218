//! Privileged execution of a plan.

pub mod channel;
pub mod console;
mod copy_up;
pub mod create;
pub mod delete;
pub mod exec;
pub mod foreground;
pub mod hooks;
mod host_view;
pub mod init;
pub mod labels;
pub mod limits;
mod listener;
pub mod namespaces;
mod netdev;
pub mod notify;
pub mod process;
pub mod rdt;
pub mod sealed;
mod stage;
pub mod start;
mod subcgroup;
pub mod tree;
mod undo;
mod userns;
