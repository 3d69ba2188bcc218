//! Containers that the engine has removed although the runtime never deleted them: its `delete` was
//! killed, and the engine did not ask again. Nobody else would ever give their ids back.

use super::Manager;
use crate::events::Kind;
use crate::leftovers;
use crate::registry::{Record, State as Life};
use crate::volumes::Presence;

/// Whether init is dead and what the engine removes with the container is gone.
pub(super) fn is_abandoned(record: &Record) -> bool {
    let is_gone = || record.owner.as_ref().is_some_and(|o| o.presence() == Presence::Gone);
    record.state == Life::Exited && is_gone()
}

impl Manager {
    /// Ends them, and removes what their runtime left.
    pub(super) fn sweep_abandoned(&self) {
        for record in self.records().iter().filter(|record| is_abandoned(record)) {
            let id = &record.id;
            let Some(live) = self.take(id, record.key) else { continue };
            tracing::info!(container = id, "its engine has removed it without deleting it; ended");
            self.let_go(record, live);
            leftovers::remove(id, &record.cgroups, &record.state_dir);
            match self.end(record, false) {
                Ok(()) => self.events.add(Kind::Deleted, id, "by the manager"),
                Err(e) => tracing::warn!(container = id, "ending it, which is tried again: {e}"),
            }
        }
    }
}
