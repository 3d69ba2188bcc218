//! What `sysbox-fs` and `sysbox-mgr` do in the same way: see that only one of them runs, write a log
//! whose level can be changed meanwhile, count what they do, and tell what they use.

pub mod instance;
pub mod log;
pub mod metrics;
pub mod usage;
