//! What the API shows of the manager.

use std::path::PathBuf;

use super::Manager;
use crate::events::Events;
use crate::registry::{Record, VolumeRecord};

impl Manager {
    /// All containers, as recorded.
    pub fn records(&self) -> Vec<Record> {
        self.lock().registry.iter().cloned().collect()
    }

    /// The host's directory of a volume.
    pub fn volume_path(&self, id: &str, volume: &VolumeRecord) -> PathBuf {
        volume.in_layer.clone().unwrap_or_else(|| self.volumes.path(id, &volume.name))
    }

    /// What has happened.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// How many host ids containers have.
    pub fn ids_taken(&self) -> u64 {
        let state = self.lock();
        let live = state.registry.iter().filter(|record| record.is_live());
        live.flat_map(|record| &record.uid_mappings).map(|mapping| u64::from(mapping.count)).sum()
    }
}
