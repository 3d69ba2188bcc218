//! Keeps descriptors for a daemon while it is away.
//!
//! What must not end with a daemon (the FUSE device, seccomp listeners) is held by somebody else as
//! well: under systemd by systemd itself, in the service's file descriptor store; otherwise by a small
//! process, the [holder](run_holder). The next instance of the daemon [finds](Store::open) it there.
//!
//! Descriptors have names, which the daemon chooses: ASCII without control characters and `:`, at most
//! 255 bytes.

mod holder;
mod service;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use holder::run as run_holder;
pub use service::sockets;

/// Whose descriptors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Name of the program; it must understand the arguments `--run-dir DIR hold`, and then call
    /// [`run_holder`].
    pub program: &'static str,
    /// Name of the holder's socket in the run directory.
    pub socket: &'static str,
}

impl Daemon {
    /// `sysbox-fs`
    pub const FS: Self = Self { program: "sysbox-fs", socket: "sysfs-hold.sock" };
    /// `sysbox-mgr`
    pub const MGR: Self = Self { program: "sysbox-mgr", socket: "sysmgr-hold.sock" };
}

/// A descriptor and its name.
pub type Named = (String, OwnedFd);

/// Duplicates of what the holder has, for its successor.
type Copies = Arc<Mutex<BTreeMap<String, OwnedFd>>>;

/// The store of one daemon.
#[derive(Debug)]
pub struct Store {
    daemon: Daemon,
    run_dir: PathBuf,
    /// Most descriptors that systemd keeps for us; `None`: a holder does it.
    service: Option<usize>,
    copies: Copies,
    watched: Mutex<bool>,
}

impl Store {
    /// The store of a daemon, and what is in it. What an earlier instance left with a holder moves
    /// to systemd if that keeps descriptors now.
    ///
    /// # Errors
    /// No descriptors left, or systemd does not answer.
    pub fn open(daemon: Daemon, run_dir: &Path) -> io::Result<(Self, Vec<Named>)> {
        let store = Self {
            daemon,
            run_dir: run_dir.to_owned(),
            service: service::capacity(),
            copies: Copies::default(),
            watched: Mutex::new(false),
        };
        let mut found = service::passed();
        let held = holder::give(&store.socket());
        let moves = held.is_some() && store.service.is_some();
        for (name, fd) in held.map(|given| given.fds).unwrap_or_default() {
            if store.service.is_some() {
                service::keep(&name, &fd)?;
            }
            found.push((name, fd));
        }
        for (name, fd) in &found {
            store.copies().insert(name.clone(), fd.try_clone()?);
        }
        if moves {
            service::settle()?;
            holder::end(&store.socket());
        }
        Ok((store, found))
    }

    /// Starts a new holder whenever the one that was found dies. To be called once it is known that
    /// what it has is wanted.
    pub fn watch(&self) -> io::Result<()> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if self.service.is_none() && !*watched && !self.copies().is_empty() {
            *watched = true;
            holder::watch(self.daemon, &self.run_dir, &self.copies)?;
        }
        Ok(())
    }

    /// Has a duplicate of `fd` kept from now on, under a name that nothing in the store has.
    ///
    /// # Errors
    /// The holder cannot be started, or systemd's store is full. Then the daemon works as always, but
    /// this descriptor ends with it.
    pub fn keep(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        let count = {
            let mut copies = self.copies();
            // systemd has them anyway; a copy only says which names are taken.
            copies.insert(name.to_owned(), fd.try_clone_to_owned()?);
            copies.len()
        };
        match self.service {
            Some(capacity) if count > capacity => {
                self.copies().remove(name);
                let full = format!(
                    "systemd keeps {capacity} descriptors for {} at most; raise FileDescriptorStoreMax= of its unit",
                    self.daemon.program
                );
                Err(io::Error::other(full))
            }
            Some(_) => service::keep(name, &fd),
            None => self.keep_in_holder(name, fd),
        }
    }

    fn keep_in_holder(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        if holder::put(&self.socket(), name, fd).is_ok() {
            return Ok(());
        }
        // There is none: a new one gets everything, this descriptor included.
        holder::start(self.daemon, &self.run_dir, &self.copies)?;
        self.watch()
    }

    /// Waits until what was given to systemd has arrived there. (A holder has answered already.) If
    /// this process died before, systemd would not know the sender and drop it.
    pub fn settle(&self) -> io::Result<()> {
        if self.service.is_some() { service::settle() } else { Ok(()) }
    }

    /// Has a descriptor let go; an unknown name is not an error.
    pub fn release(&self, name: &str) {
        if self.copies().remove(name).is_none() {
            return;
        }
        if self.service.is_some() {
            service::release(name);
        } else {
            holder::remove(&self.socket(), name);
        }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join(self.daemon.socket)
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has everything let go that is kept for a daemon, whoever keeps it.
pub fn release_all(daemon: Daemon, run_dir: &Path) {
    holder::end(&run_dir.join(daemon.socket));
    for (name, _) in service::passed() {
        service::release(&name);
    }
}
