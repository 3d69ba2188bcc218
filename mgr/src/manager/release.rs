//! The ends of a container: unregistered, rolled back, removed by the engine.

use std::os::fd::AsFd as _;
use std::sync::PoisonError;
use std::time::Duration;

use sysbox_ipc::crash;

use super::{Live, Manager, Runtime, State, unknown};
use crate::error::{Doing as _, Error, Result};
use crate::events::Kind;
use crate::leftovers;
use crate::registry::{Record, State as Life, process};
use crate::volumes::{Presence, notes, open_store};

/// How long one that works on a container waits for another.
const BUSY: Duration = Duration::from_secs(10);
/// How long `delete` waits for an init that was just killed to be dead.
const DYING: Duration = Duration::from_secs(2);

impl Manager {
    /// `Unregister`: the runtime has deleted the container. Its volumes stay for as long as the
    /// engine keeps the container.
    pub fn unregister(&self, id: &str) -> Result<()> {
        // Its creation failed when the last manager died, and goes on no more.
        if self.lock().orphans.remove(id).is_some() {
            self.roll_back(id, Runtime::Alive);
        }
        // An engine deletes what it failed to create while that is still being taken back.
        let creating =
            |s: &mut State| s.registry.get(id).is_some_and(|r| r.state == Life::Creating);
        let (state, _) = self
            .released
            .wait_timeout_while(self.lock(), BUSY, creating)
            .unwrap_or_else(PoisonError::into_inner);
        let record = match state.registry.get(id) {
            None => return Ok(()),
            Some(record) if record.state == Life::Stopped => return Ok(()),
            Some(record) => record.clone(),
        };
        drop(state);
        if record.state == Life::Creating {
            return Err(Error::new(format!("container {id} is still being created")));
        }
        // Its ids would be given to another while its processes have them.
        if let Some(init) = record.init
            && let Some(pidfd) = init.open()
            && !process::wait_dead(pidfd.as_fd(), DYING)
        {
            return Err(Error::new(format!(
                "container {id} still runs (init is process {})",
                init.pid
            ))
            .remedy("kill it first"));
        }
        let Some(live) = self.take(id, record.key) else {
            // Another `delete` was faster, or something holds it up.
            let ended = self.lock().registry.get(id).is_none_or(|r| !r.is_live());
            return if ended { Ok(()) } else { Err(unknown(id)) };
        };
        self.let_go(&record, live);
        crash::point("unregister.let-go");
        // Before the engine hears that it is over, for then it may commit the container.
        self.note(&record);
        self.end(&record, false).doing(|| format!("recording the end of container {id}"))?;
        crash::point("unregister.recorded");
        self.events.add(Kind::Deleted, id, "");
        Ok(())
    }

    /// `Paused`: all processes of the container are frozen, perhaps for a commit.
    pub fn paused(&self, id: &str) {
        let record = self.lock().registry.get(id).cloned();
        if let Some(record) = record.filter(Record::is_live) {
            self.note(&record);
        }
    }

    /// Writes down, in the stores of inner engines that are part of the container, what the archive of
    /// an image would leave out.
    pub(super) fn note(&self, record: &Record) {
        for store in record.volumes.iter().filter_map(|v| v.in_layer.as_ref()) {
            let written = open_store(store).and_then(|store| notes::write(store.as_fd()));
            match written {
                // The engine has removed it already, or its root is no longer mounted.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => tracing::warn!(
                    container = record.id,
                    store = %store.display(),
                    "an image made of it now may lack attributes of inner images: {e}"
                ),
                Ok(()) => {}
            }
        }
    }

    /// Takes back a registration that was not committed: ids, virtualised files, the volumes that
    /// were made for it; of a dead runtime also cgroups and state directory.
    pub fn roll_back(&self, id: &str, runtime: Runtime) {
        let record = match self.lock().registry.get(id) {
            Some(record) if record.state == Life::Creating => record.clone(),
            _ => return,
        };
        let Some(live) = self.take(id, record.key) else {
            return;
        };
        tracing::info!(container = id, ?runtime, "registration taken back");
        self.events.add(Kind::Undone, id, format!("its runtime is {runtime:?}").to_lowercase());
        self.let_go(&record, live);
        if runtime == Runtime::Dead {
            leftovers::remove(id, &record.cgroups, &record.state_dir);
        }
        if let Err(e) = self.end(&record, true) {
            tracing::error!(container = id, "recording that its creation was taken back: {e}");
        }
    }

    /// Takes a container's descriptors out of the table: from now on this thread alone works on it.
    /// Waits for another that does so now; `None` if that one ended the container, or takes long.
    pub(super) fn take(&self, id: &str, key: u32) -> Option<Live> {
        let taken = |state: &mut State| {
            let lives = state.registry.get(id).is_some_and(|r| r.key == key && r.is_live());
            lives && !state.live.contains_key(id)
        };
        let (mut state, _) = self
            .released
            .wait_timeout_while(self.lock(), BUSY, taken)
            .unwrap_or_else(PoisonError::into_inner);
        state.registry.get(id).filter(|record| record.key == key)?;
        state.live.remove(id)
    }

    /// Ends what others do for the container.
    pub(super) fn let_go(&self, record: &Record, live: Live) {
        self.inits.forget(record.key);
        if let Some(view) = &live.view {
            view.set_container(None);
        }
        self.coherence.forget(record.key);
        self.fs.remove(&record.id);
    }

    /// Writes the end of a container that was live: "stopped" if it has volumes, nothing if not.
    /// `undo`: volumes that its registration made are deleted.
    pub(super) fn end(&self, record: &Record, undo: bool) -> std::io::Result<()> {
        let written = self.write_end(record, undo);
        if written.is_err() {
            // It is not ended: a later `delete`, or the next start, tries again.
            self.lock().live.insert(record.id.clone(), Live::default());
        }
        self.released.notify_all();
        if written? {
            if let Some(owner) = &record.owner {
                self.owners.watch(&record.id, &owner.path);
            }
            // The engine may have removed the container while we did not watch.
            self.sweep_one(&record.id);
        }
        Ok(())
    }

    /// Says whether a record remains.
    fn write_end(&self, record: &Record, undo: bool) -> std::io::Result<bool> {
        let mut stopped = record.clone();
        if undo {
            for volume in record.volumes.iter().filter(|v| v.new && v.in_layer.is_none()) {
                self.volumes.discard(&record.id, &volume.name)?;
            }
            stopped.volumes.retain(|v| !v.new);
        }
        stopped.stop();
        let remains = !stopped.volumes.is_empty();
        let mut state = self.lock();
        if remains {
            state.registry.put(stopped)?;
        } else {
            state.registry.remove(&record.id)?;
        }
        Ok(remains)
    }

    /// Removes the volumes of all stopped containers whose owner is gone.
    pub fn sweep(&self) {
        self.sweep_orphans();
        self.sweep_abandoned();
        let stopped: Vec<String> = {
            let state = self.lock();
            state.registry.iter().filter(|r| !r.is_live()).map(|r| r.id.clone()).collect()
        };
        stopped.iter().for_each(|id| self.sweep_one(id));
    }

    /// Removes the volumes of a stopped container if its owner is gone.
    pub(super) fn sweep_one(&self, id: &str) {
        let looked_at = match self.lock().registry.get(id) {
            Some(record) if !record.is_live() => record.clone(),
            _ => return,
        };
        let Some(owner) = &looked_at.owner else {
            return;
        };
        match owner.presence() {
            Presence::Present | Presence::Unknown => return,
            Presence::Gone => {}
        }
        let mut state = self.lock();
        // It may have been registered again meanwhile.
        if state.registry.get(id) != Some(&looked_at) {
            return;
        }
        let removed = self.volumes.discard_all(id).and_then(|()| {
            crash::point("sweep.discarded");
            state.registry.remove(id)
        });
        drop(state);
        self.owners.forget(id);
        match removed {
            Ok(()) => {
                tracing::info!(container = id, "removed by its engine, and so are its volumes");
                self.events.add(Kind::Removed, id, "");
            }
            Err(e) => {
                tracing::warn!(container = id, "removing its volumes, which is tried again: {e}")
            }
        }
    }
}
