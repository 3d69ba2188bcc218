//! Privileged execution of a plan.

pub mod channel;
pub mod console;
pub mod create;
pub mod delete;
pub mod exec;
pub mod foreground;
pub mod hooks;
pub mod init;
pub mod limits;
pub mod namespaces;
pub mod process;
pub mod start;
pub mod tree;
