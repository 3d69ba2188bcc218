//! The real daemon, with temporary directories, against a `sysbox-fs` that the test plays.
//!
//! These tests need root (user namespaces with mappings, mounts, cgroups) and pass over themselves
//! without it.

mod api;
mod client;
mod coherence;
mod fake_fs;
mod full_disk;
mod host;
mod ids;
mod lifecycle;
mod restart;
mod survival;
mod volumes;

/// Ends a test that cannot run here.
#[macro_export]
macro_rules! need_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("passed over: needs root");
            return;
        }
    };
}
