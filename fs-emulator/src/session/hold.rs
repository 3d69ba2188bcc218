//! Keeps the FUSE device open while the daemon is away.
//!
//! The file system lives as long as someone has the device open. Under systemd that is systemd (its
//! file descriptor store, where the unit allows it); otherwise a small process, the
//! [holder](super::holder).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use sd_notify::NotifyState;

use super::holder;

/// Beginning of the device's name in systemd's store; the agreed flags follow in hexadecimal.
const NAME: &str = "fuse-";

/// A device that was kept, and the flags that its connection agreed on with the kernel.
#[derive(Debug)]
pub struct Held {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// Agreed flags.
    pub flags: u64,
}

/// The device of an earlier daemon, if someone kept it.
pub fn find(run_dir: &Path) -> Option<Held> {
    from_service_manager().or_else(|| holder::ask(run_dir))
}

fn from_service_manager() -> Option<Held> {
    let passed = sd_notify::listen_fds_with_names().ok()?;
    let (number, flags) = passed.into_iter().find_map(|(number, name)| {
        let flags = u64::from_str_radix(name.strip_prefix(NAME)?, 16).ok()?;
        Some((number, flags))
    })?;
    let device = sysbox_kernel::fuse::passed_descriptor(number).ok()?;
    Some(Held { device, flags })
}

/// Has a device kept from now on. Without that the daemon works, but the containers' files do not
/// outlive it.
pub fn keep(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    if !store_is_there() {
        return holder::start(run_dir, device, flags);
    }
    let name = format!("{NAME}{flags:x}");
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(&name),
        // Without this systemd would watch the device, and every request would wake it up.
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, &[device])
}

/// Goes on keeping a device that was [found](find): watches over the holder, if it is one.
pub fn keep_on(run_dir: &Path, held: &Held) -> io::Result<()> {
    if store_is_there() {
        return Ok(());
    }
    holder::watch(run_dir, &held.device, held.flags)
}

/// Has the device let go, whoever keeps it.
pub fn release(run_dir: &Path) {
    holder::end(run_dir);
    if let Ok(passed) = sd_notify::listen_fds_with_names() {
        for (_, name) in passed.into_iter().filter(|(_, name)| name.starts_with(NAME)) {
            let state = [NotifyState::FdStoreRemove, NotifyState::FdName(&name)];
            let _ = sd_notify::notify(&state);
        }
    }
}

/// Whether systemd keeps descriptors for this service.
fn store_is_there() -> bool {
    let size = std::env::var("FDSTORE").ok().and_then(|n| n.parse::<u32>().ok());
    size.is_some_and(|n| n > 0) && std::env::var_os("NOTIFY_SOCKET").is_some()
}
