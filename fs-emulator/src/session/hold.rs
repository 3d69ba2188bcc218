//! Keeps the FUSE device open while the daemon is away.
//!
//! The file system lives as long as someone has the device open: the daemon's [store](sysbox_ipc::store)
//! has it, too.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use sysbox_ipc::store::{self, Daemon, Store};

/// Beginning of the device's name in the store; the agreed flags follow in hexadecimal.
const NAME: &str = "fuse-";

/// A device that was kept, and the flags that its connection agreed on with the kernel.
#[derive(Debug)]
pub struct Held {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// Agreed flags.
    pub flags: u64,
    store: Store,
}

/// The device of an earlier daemon, if someone kept it.
pub fn find(run_dir: &Path) -> Option<Held> {
    let (store, found) = Store::open(Daemon::FS, run_dir)
        .inspect_err(|e| tracing::warn!("looking for a FUSE device that was kept: {e}"))
        .ok()?;
    let (device, flags) = found.into_iter().find_map(|(name, device)| {
        let flags = u64::from_str_radix(name.strip_prefix(NAME)?, 16).ok()?;
        Some((device, flags))
    })?;
    Some(Held { device, flags, store })
}

/// Has a device kept from now on. Without that the daemon works, but the containers' files do not
/// outlive it.
pub fn keep(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let (store, _) = Store::open(Daemon::FS, run_dir)?;
    store.keep(&format!("{NAME}{flags:x}"), device)
}

/// Goes on keeping a device that was [found](find).
pub fn keep_on(held: &Held) -> io::Result<()> {
    held.store.watch()
}

/// Has the device let go, whoever keeps it.
pub fn release(run_dir: &Path) {
    store::release_all(Daemon::FS, run_dir);
}
