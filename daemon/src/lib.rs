//! What `sysbox-fs` and `sysbox-mgr` do in the same way: write a log whose level can be changed while
//! they run, count what they do, and tell what they use.

pub mod log;
pub mod metrics;
pub mod usage;
