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
pub const JOURNAL: &str = "journal";

/// Name of the memory with the texts of open files. The number is that of its layout: daemons of
/// versions that know others have memories of their own.
pub const TEXTS: &str = "texts-1";

/// A device that was kept, and the flags that its connection agreed on with the kernel.
#[derive(Debug)]
pub struct Held {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// Agreed flags.
    pub flags: u64,
    /// The shared memory of the journal of requests.
    pub journal: Option<OwnedFd>,
    /// The shared memory of the texts of open files.
    pub texts: Option<OwnedFd>,
    store: Store,
}

/// The device of an earlier daemon, if someone kept it.
pub fn find(run_dir: &Path) -> Option<Held> {
    let (store, found) = Store::open(Daemon::FS, run_dir)
        .inspect_err(|e| tracing::warn!("looking for a FUSE device that was kept: {e}"))
        .ok()?;
    let (mut held, mut journal, mut texts) = (None, None, None);
    for (name, fd) in found {
        if name == JOURNAL {
            journal = Some(fd);
        } else if name == TEXTS {
            texts = Some(fd);
        } else if let Some(flags) = name.strip_prefix(NAME)
            && let Ok(flags) = u64::from_str_radix(flags, 16)
        {
            held = Some((fd, flags));
        }
    }
    let (device, flags) = held?;
    Some(Held { device, flags, journal, texts, store })
}

/// Has a device kept from now on, and these memories by name. Without that the daemon works, but the
/// containers' files do not outlive it.
pub fn keep(
    run_dir: &Path,
    device: BorrowedFd<'_>,
    flags: u64,
    memories: &[(&str, BorrowedFd<'_>)],
) -> io::Result<()> {
    let (store, _) = Store::open(Daemon::FS, run_dir)?;
    store.keep(&format!("{NAME}{flags:x}"), device)?;
    memories.iter().try_for_each(|(name, memory)| store.keep(name, *memory))
}

/// Goes on keeping a device that was [found](find), with memories that were not there, or take the place
/// of those that were.
pub fn keep_on(held: &Held, memories: &[(&str, BorrowedFd<'_>)]) -> io::Result<()> {
    for (name, memory) in memories {
        held.store.release(name);
        held.store.keep(name, *memory)?;
    }
    held.store.watch()
}

/// Has the device let go, whoever keeps it.
pub fn release(run_dir: &Path) {
    store::release_all(Daemon::FS, run_dir);
}
