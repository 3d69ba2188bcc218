//! The containers and their state, in memory and on disk.
//!
//! Every change is written before it takes effect. Writing can fail (a full disk): then the change
//! has not happened and the caller's call fails. Only a new registration [takes](Registry::take) its ids
//! before its record is written, when nothing of it is there yet that would outlive the manager.

mod keys;
pub mod process;
mod record;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub use process::Process;
pub use record::{Cgroups, Record, State, VERSION, VolumeRecord};

use crate::ids::IdRange;
use keys::Keys;
use store::Store;

/// All containers.
#[derive(Debug)]
pub struct Registry {
    records: BTreeMap<String, Record>,
    store: Store,
    keys: Keys,
}

impl Registry {
    /// Loads what is under `data_root`.
    pub fn open(data_root: &Path) -> io::Result<Self> {
        let store = Store::open(&data_root.join("containers"))?;
        let records: BTreeMap<_, _> =
            store.load()?.into_iter().map(|r| (r.id.clone(), r)).collect();
        let highest = records.values().map(|r| r.key).max().unwrap_or(0);
        let keys = Keys::open(&data_root.join("next-key"), highest)?;
        Ok(Self { records, store, keys })
    }

    /// The record of a container.
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// All records, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// A key for a new registration.
    pub fn next_key(&mut self) -> io::Result<u32> {
        self.keys.next()
    }

    /// Writes a record, new or changed.
    pub fn put(&mut self, record: Record) -> io::Result<()> {
        // After a power failure nothing lives any more, and of a container without volumes nothing
        // needs to be remembered: its record need not wait for the medium.
        self.store.save(&record, !record.volumes.is_empty())?;
        self.records.insert(record.id.clone(), record);
        Ok(())
    }

    /// Has a new registration take what its record says, which is not written yet. Gives what is to be
    /// [put back](Self::put_back) if it comes to nothing.
    pub fn take(&mut self, record: Record) -> Option<Record> {
        self.records.insert(record.id.clone(), record)
    }

    /// Undoes [`take`](Self::take).
    pub fn put_back(&mut self, id: &str, former: Option<Record>) {
        match former {
            Some(record) => self.records.insert(id.to_owned(), record),
            None => self.records.remove(id),
        };
    }

    /// Changes a record in place; `None` if there is none of that id.
    pub fn update(&mut self, id: &str, change: impl FnOnce(&mut Record)) -> io::Result<Option<()>> {
        let Some(mut record) = self.records.get(id).cloned() else {
            return Ok(None);
        };
        change(&mut record);
        self.put(record).map(Some)
    }

    /// Forgets a container.
    pub fn remove(&mut self, id: &str) -> io::Result<()> {
        self.store.remove(id)?;
        self.records.remove(id);
        Ok(())
    }

    /// The id ranges that live containers hold, with the id of each.
    pub fn ids_in_use(&self) -> impl Iterator<Item = (IdRange, &str)> {
        self.records.values().flat_map(|r| r.ids().map(|ids| (ids, r.id.as_str())))
    }
}

#[cfg(test)]
mod tests;
