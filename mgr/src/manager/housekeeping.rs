//! What happens by itself: inits die, owners go away, `sysbox-fs` comes back.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sysbox_ipc::proto;

use super::{Manager, Opaque};
use crate::broker;
use crate::registry::State as Life;

/// Interval of the sweeps over stopped containers.
const SWEEP: Duration = Duration::from_secs(30);

/// What the watching threads report.
#[derive(Debug)]
pub enum Event {
    /// The init of this registration has died.
    InitDied(u32),
    /// The owner of this container's volumes went away.
    OwnerRemoved(String),
    /// `sysbox-fs` has this container's files (again).
    FilesAdded(String, proto::Added),
}

/// Works off events until the manager is dropped.
pub fn run(manager: &Weak<Manager>, events: &Receiver<Event>) {
    loop {
        let event = events.recv_timeout(SWEEP);
        let Some(manager) = manager.upgrade() else {
            return;
        };
        match event {
            Ok(Event::InitDied(key)) => manager.init_died(key),
            Ok(Event::OwnerRemoved(id)) => manager.sweep_one(&id),
            Ok(Event::FilesAdded(id, added)) => manager.files_added(&id, added),
            Err(RecvTimeoutError::Timeout) => manager.sweep(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Manager {
    fn init_died(&self, key: u32) {
        let mut state = self.lock();
        let Some(record) = state.registry.iter().find(|r| r.key == key) else {
            return;
        };
        let id = record.id.clone();
        if record.state != Life::Running {
            return;
        }
        tracing::info!(container = id, "its init has ended");
        // Its own mount of the root must not outlive it.
        if let Some(view) = state.live.get(&id).and_then(|live| live.view.as_ref()) {
            view.set_container(None);
        }
        if let Err(e) = state
            .registry
            .update(&id, |record| record.state = Life::Exited)
        {
            // Found again at the next start of the manager by its pid and start time.
            tracing::warn!(container = id, "recording that its init has ended: {e}");
        }
    }

    fn files_added(&self, id: &str, added: proto::Added) {
        let mut state = self.lock();
        let Some(live) = state.live.get_mut(id) else {
            return;
        };
        let Some(userns) = live.userns.take() else {
            return;
        };
        live.container = Some(Opaque(Arc::new(broker::Container {
            id: id.to_owned(),
            userns,
            emulated_dir: PathBuf::from(added.emulated_dir),
            emulated_files: added.emulated_files,
        })));
    }
}
