//! The containers that are served.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::container::{Container, Record};
use crate::settings::{Refusal, Setting, Values};
use crate::state::Store;
use crate::table::Row;
use crate::view::host::Host;

/// Why a container was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The number can't be used.
    #[error("container {id}: key {key} is {why}")]
    Key {
        /// The container's id.
        id: String,
        /// The key.
        key: u32,
        /// What is wrong with it.
        why: String,
    },
    /// The container could not be written to disk.
    #[error("container {id}: saving it: {source}")]
    Save {
        /// The container's id.
        id: String,
        /// Why.
        source: io::Error,
    },
}

/// Why a setting was not changed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// As the kernel would have refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The value could not be kept.
    #[error("saving it: {0}")]
    Save(#[from] io::Error),
}

/// All containers, in memory and on disk.
#[derive(Debug)]
pub struct Containers {
    host: Arc<Host>,
    store: Store,
    /// Held by who changes the containers, from the disk to the map.
    change: Mutex<()>,
    by_key: RwLock<HashMap<u32, Arc<Container>>>,
}

impl Containers {
    /// The containers that the store holds.
    pub fn load(host: Arc<Host>, store: Store) -> io::Result<Self> {
        let mut progress = store.load_progress();
        let mut by_key = HashMap::new();
        for record in store.load()? {
            let container = Container::new(record, &host);
            let key = container.record.key;
            progress.remove(&key).into_iter().for_each(|p| container.resume(p));
            *container.settings.lock().unwrap_or_else(PoisonError::into_inner) =
                store.load_settings(&container.record.id);
            by_key.insert(key, Arc::new(container));
        }
        Ok(Self { host, store, change: Mutex::default(), by_key: RwLock::new(by_key) })
    }

    /// Keeps on disk what is remembered of all containers.
    pub fn save_progress(&self) -> io::Result<()> {
        let containers = self.all().into_iter();
        self.store.save_progress(&containers.map(|c| (c.record.key, c.progress())).collect())
    }

    /// Begins to serve a container. One that is known by this id and key stays as it is; an id
    /// that comes with a new key is another container, which takes the place of the old one.
    ///
    /// # Errors
    /// Key 0, a key of another container, an id that is no file name, a full disk.
    pub fn add(&self, mut record: Record) -> Result<(), AddError> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let key_error =
            |why: String| Err(AddError::Key { id: record.id.clone(), key: record.key, why });
        if record.key == 0 {
            return key_error("reserved".into());
        }
        let again = self.get(record.key).filter(|known| known.record.id == record.id);
        if let Some(again) = &again
            && record.lifetime.is_empty()
        {
            record.lifetime.clone_from(&again.record.lifetime);
        }
        match self.get(record.key) {
            Some(known) if known.record == record => return Ok(()),
            Some(known) if known.record.id != record.id => {
                return key_error(format!("container {}'s", known.record.id));
            }
            _ => {}
        }
        let save = |source| AddError::Save { id: record.id.clone(), source };
        let settings = match &again {
            Some(again) => again.settings.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => self.begin(&record).map_err(save)?,
        };
        self.store.save(&record).map_err(save)?;
        let container = Container::new(record, &self.host);
        *container.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        if let Some(again) = again {
            container.resume(again.progress());
        }
        let container = Arc::new(container);
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, other| other.record.id != container.record.id);
        by_key.insert(container.record.key, container);
        Ok(())
    }

    /// The settings that a new container begins with: those of its last life, if it had one.
    fn begin(&self, record: &Record) -> io::Result<Values> {
        // It may have been started again before anybody said that it had ended.
        if let Some(last) = self.find(&record.id) {
            self.keep(&last)?;
        }
        let settings = self.store.take_kept_settings(record)?;
        if settings.is_empty() {
            self.store.remove_settings(&record.id)?;
        } else {
            self.store.save_settings(&record.id, &settings)?;
        }
        Ok(settings)
    }

    fn keep(&self, container: &Container) -> io::Result<()> {
        let settings = container.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.store.keep_settings(&container.record, &settings)
    }

    /// Changes a setting of a container, on disk first.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn write(
        &self,
        container: &Container,
        row: &Row,
        setting: &Setting,
        written: &[u8],
    ) -> Result<(), WriteError> {
        let mut values = container.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = values.clone();
        new.write(&self.host, row, setting, written)?;
        if new != *values {
            self.store.save_settings(&container.record.id, &new)?;
            *values = new;
        }
        Ok(())
    }

    /// Forgets a container, but for its settings; gives it back if it was known.
    pub fn remove(&self, id: &str) -> io::Result<Option<Arc<Container>>> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = self.find(id) else {
            return Ok(None);
        };
        self.keep(&known)?;
        self.store.remove(id)?;
        let mut by_key = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        Ok(by_key.remove(&known.record.key))
    }

    /// The container with this key.
    pub fn get(&self, key: u32) -> Option<Arc<Container>> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// The container with this id.
    pub fn find(&self, id: &str) -> Option<Arc<Container>> {
        let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        by_key.values().find(|c| c.record.id == id).cloned()
    }

    /// All containers, by key.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let by_key = self.by_key.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = by_key.values().cloned().collect();
        all.sort_by_key(|c| c.record.key);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, key: u32) -> Record {
        let (unified, v1) = (String::new(), Vec::new());
        let (created_boottime_ns, lifetime) = (0, "root".into());
        Record { id: id.into(), key, uid: 1, gid: 1, unified, v1, created_boottime_ns, lifetime }
    }

    #[test]
    fn adding_twice_is_once_and_survives() {
        let dir = tempfile::tempdir().unwrap();
        let host = Arc::new(Host::new(dir.path()));
        let open = || {
            let store = Store::open(&dir.path().join("state")).unwrap();
            Containers::load(host.clone(), store).unwrap()
        };
        let containers = open();
        containers.add(record("a", 1)).unwrap();
        let first = containers.get(1).unwrap();
        containers.add(record("a", 1)).unwrap();
        assert!(Arc::ptr_eq(&first, &containers.get(1).unwrap()));
        assert!(containers.add(record("b", 1)).is_err());
        assert!(containers.add(record("b", 0)).is_err());
        containers.add(record("a", 2)).unwrap();
        assert!(containers.get(1).is_none());
        containers.get(2).unwrap().last_pid(77);
        // Said anew with another owner, it is the same container.
        containers.add(Record { uid: 2, ..record("a", 2) }).unwrap();
        assert_eq!(containers.get(2).unwrap().last_pid(5), 77);
        containers.save_progress().unwrap();
        assert_eq!(open().get(2).unwrap().last_pid(5), 77);
        assert_eq!(open().all().iter().map(|c| c.record.key).collect::<Vec<_>>(), [2]);
        assert!(containers.remove("a").unwrap().is_some());
        assert!(containers.remove("a").unwrap().is_none());
        assert!(open().all().is_empty());
    }
}
