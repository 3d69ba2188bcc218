//! What happens by itself: inits die, owners go away, `sysbox-fs` comes back.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sysbox_ipc::{crash, proto};

use super::{Manager, Opaque};
use crate::broker;
use crate::events::Kind;
use crate::registry::{Record, State as Life};

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
    /// No task is left under the filter of this listener.
    ListenerEnded(u64),
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
            Ok(Event::ListenerEnded(number)) => manager.kept.ended(number),
            Err(RecvTimeoutError::Timeout) => manager.sweep(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Manager {
    fn init_died(&self, key: u32) {
        let running = |r: &&Record| r.key == key && r.state == Life::Running;
        let Some(record) = self.lock().registry.iter().find(running).cloned() else { return };
        let Some(mut live) = self.take(&record.id, key) else { return };
        tracing::info!(container = record.id, "its init has ended");
        self.events.add(Kind::Exited, &record.id, "");
        // With init all processes of the container are dead, so nothing changes its root any more;
        // and neither mount of it must be kept in use, for the engine may unmount it now.
        if let Some(view) = live.view.take() {
            view.set_container(None);
        }
        self.coherence.forget(key);
        let mut state = self.lock();
        if let Err(e) = state.registry.update(&record.id, |record| record.state = Life::Exited) {
            // Found again at the next start of the manager by its pid and start time.
            tracing::warn!(container = record.id, "recording that its init has ended: {e}");
        }
        state.live.insert(record.id, live);
        drop(state);
        crash::point("exited.recorded");
        self.released.notify_all();
    }

    fn files_added(&self, id: &str, added: proto::Added) {
        let mut state = self.lock();
        let Some(live) = state.live.get_mut(id) else {
            return;
        };
        let Some(userns) = live.userns.take() else {
            return;
        };
        let container = Arc::new(broker::Container {
            id: id.to_owned(),
            userns,
            emulated_dir: PathBuf::from(added.emulated_dir),
            emulated_files: added.emulated_files,
            made: broker::Made::default(),
        });
        live.container = Some(Opaque(container.clone()));
        self.events.add(Kind::FilesBack, id, "");
        let key = state.registry.get(id).map(|record| record.key);
        drop(state);
        self.released.notify_all();
        if let Some(key) = key {
            self.adopt_listeners(key, &container);
        }
    }
}
