//! What happens to a container: registered, committed, dead, unregistered, started again, removed.
//!
//! ```text
//!            Register                Commit              init dies            Unregister
//!  (nothing) ───────► creating ───────────► running ───────────► exited ───────────┐
//!      ▲                 │                                                         ▼
//!      │ connection      │      ┌───────────────── Register ──────────────────── stopped
//!      └──── closed ─────┘      ▼                                                  │
//!                            creating                          owner removed       ▼
//!                                                                              (nothing)
//! ```
//!
//! A container without volumes skips `stopped`: there is nothing to be kept for it.
//!
//! The state (records, ids, descriptors) is behind one lock that is held for in-memory work and for
//! writing a record, never over a call that can take long. Whoever works on a container outside the
//! lock has first taken its [`Live`] out of the table; others wait until it is back or has ended.

mod abandoned;
mod commit;
pub mod gc;
mod housekeeping;
mod inits;
mod listeners;
mod recover;
mod register;
mod release;
mod resume;
mod stores;
pub mod validate;
mod view;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use sysbox_ipc::proto;

use crate::broker::{self, Broker};
use crate::coherence::{Coherence, View};
use crate::error::{Doing as _, Error, Result};
use crate::events::{Events, Kind};
use crate::fs_link::FsLink;
use crate::ids::{Ids, SubidFiles};
use crate::kept::Kept;
use crate::registry::{Registry, process};
use crate::sync::lock;
use crate::volumes::{OwnerWatch, Volumes};
use housekeeping::Event;
use inits::InitWatch;

/// All containers of the host and what they hold.
#[derive(Debug)]
pub struct Manager {
    state: Mutex<State>,
    /// Signalled when a container is committed, has ended, or is back in the table after somebody
    /// worked on it.
    released: Condvar,
    volumes: Volumes,
    owners: OwnerWatch,
    coherence: Coherence,
    kept: Kept,
    broker: Handle,
    fs: FsLink,
    inits: InitWatch,
    boot_id: String,
    data_root: PathBuf,
    events: Events,
}

/// What the lock protects.
#[derive(Debug)]
struct State {
    registry: Registry,
    ids: Ids,
    /// One for each record that is not "stopped", unless somebody is working on that container.
    live: HashMap<String, Live>,
    /// Containers whose creation an earlier manager has begun; see `resume`.
    orphans: HashMap<String, Instant>,
}

/// The descriptors of a container that is not stopped.
#[derive(Debug, Default)]
struct Live {
    /// For the broker; absent until the virtualised files are known.
    container: Option<Served>,
    /// User namespace of a container that was found running at start.
    userns: Option<OwnedFd>,
    /// Both overlays of its root; absent where the root is no overlay.
    view: Option<Arc<View>>,
}

/// A container as the broker knows it.
type Served = Opaque<Arc<broker::Container>>;
/// The broker.
type Handle = Opaque<Broker>;

/// A value that is left out of debug output.
struct Opaque<T>(T);

impl<T> std::fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// What the runtime's end of a rolled back registration is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// It lives and cleans up what it made itself.
    Alive,
    /// It is dead: what it made is for us to remove.
    Dead,
}

impl Manager {
    /// Loads the state under `data_root` and takes up the containers that live, with what was kept
    /// of them (the holder's socket is in `run_dir`).
    pub fn start(run_dir: &Path, data_root: &Path, files: SubidFiles) -> Result<Arc<Self>> {
        let root = data_root.display();
        let registry =
            Registry::open(data_root).doing(|| format!("loading the records under {root}"))?;
        let volumes =
            Volumes::open(data_root).doing(|| format!("opening the volumes under {root}"))?;
        let recorded: Vec<_> = registry.ids_in_use().map(|(range, _)| range).collect();
        let ids = Ids::open(files, &recorded)?;
        let (events, received) = channel();
        let send = |events: &Sender<Event>| {
            let events = events.clone();
            // The receiver lives as long as the manager.
            move |event| drop(events.send(event))
        };
        let (died, removed, added) = (send(&events), send(&events), send(&events));
        let ended = Mutex::new(send(&events));
        let ended = move |number| lock(&ended)(Event::ListenerEnded(number));
        let starting = |what: &'static str| move || format!("starting to {what}");
        let kept = Kept::open(run_dir).doing(starting("take up what was kept"))?;
        let broker = Broker::start(kept.journal(), ended).doing(starting("serve mounts"))?;
        let manager = Arc::new(Self {
            state: Mutex::new(State {
                registry,
                ids,
                live: HashMap::new(),
                orphans: HashMap::new(),
            }),
            released: Condvar::new(),
            volumes,
            owners: OwnerWatch::start(move |id| removed(Event::OwnerRemoved(id.to_owned())))
                .doing(starting("watch the owners of volumes"))?,
            coherence: Coherence::start(),
            kept,
            broker: Opaque(broker),
            fs: FsLink::start(move |id, answer| added(Event::FilesAdded(id.to_owned(), answer)))
                .doing(starting("talk to sysbox-fs"))?,
            inits: InitWatch::start(move |key| died(Event::InitDied(key)))
                .doing(starting("watch containers"))?,
            boot_id: process::boot_id(),
            data_root: data_root.to_owned(),
            events: Events::default(),
        });
        manager.events.add(Kind::ManagerStarted, "", env!("CARGO_PKG_VERSION"));
        manager.recover()?;
        let housekeeper = Arc::downgrade(&manager);
        std::thread::Builder::new()
            .name("housekeeping".into())
            .spawn(move || housekeeping::run(&housekeeper, &received))
            .doing(starting("keep house"))?;
        Ok(manager)
    }

    /// What the manager holds.
    pub fn status(&self) -> proto::MgrStatus {
        let state = self.lock();
        let containers = state
            .registry
            .iter()
            .map(|record| record.status(|volume| self.volume_path(&record.id, volume)))
            .collect();
        proto::MgrStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // The kernel's limit for pids is far below.
            pid: std::process::id() as i32,
            containers,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn unknown(id: &str) -> Error {
    Error::new(format!("container {id} is not registered, or is being removed"))
}
