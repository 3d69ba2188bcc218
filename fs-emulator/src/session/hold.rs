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

/// Name of the journal in the store, where there is one.
const JOURNAL: &str = "journal";

/// A device that was kept, and the flags that its connection agreed on with the kernel.
#[derive(Debug)]
pub struct Held {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// Agreed flags.
    pub flags: u64,
    /// The shared memory of the journal of requests.
    pub journal: Option<OwnedFd>,
    store: Store,
}

/// The device of an earlier daemon, if someone kept it.
pub fn find(run_dir: &Path) -> Option<Held> {
    let (store, found) = Store::open(Daemon::FS, run_dir)
        .inspect_err(|e| tracing::warn!("looking for a FUSE device that was kept: {e}"))
        .ok()?;
    let (mut held, mut journal) = (None, None);
    for (name, fd) in found {
        if name == JOURNAL {
            journal = Some(fd);
        } else if let Some(flags) = name.strip_prefix(NAME)
            && let Ok(flags) = u64::from_str_radix(flags, 16)
        {
            held = Some((fd, flags));
        }
    }
    let (device, flags) = held?;
    Some(Held { device, flags, journal, store })
}

/// Has a device kept from now on, and the journal of its requests. Without that the daemon works,
/// but the containers' files do not outlive it.
pub fn keep(
    run_dir: &Path,
    device: BorrowedFd<'_>,
    flags: u64,
    journal: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let (store, _) = Store::open(Daemon::FS, run_dir)?;
    store.keep(&format!("{NAME}{flags:x}"), device)?;
    journal.map_or(Ok(()), |journal| store.keep(JOURNAL, journal))
}

/// Goes on keeping a device that was [found](find), with a journal that was not there.
pub fn keep_on(held: &Held, journal: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if let (None, Some(journal)) = (&held.journal, journal) {
        held.store.keep(JOURNAL, journal)?;
    }
    held.store.watch()
}

/// Has the device let go, whoever keeps it.
pub fn release(run_dir: &Path) {
    store::release_all(Daemon::FS, run_dir);
}
