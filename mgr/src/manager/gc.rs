//! What nobody owns any more: found, told, and removed if that is beyond doubt.
//!
//! Most of it is removed by itself, by the watches and sweeps. This is for who wants to know, and for
//! what the manager does not dare to remove without being asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sysbox_ipc::FsClient;

use super::Manager;
use super::abandoned::is_abandoned;
use crate::registry::Record;
use crate::volumes::Presence;

/// What it is that was left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container that its engine has removed without deleting it.
    Container,
    /// Stores of inner engines.
    Volumes,
    /// A record that can't be read.
    Record,
    /// Virtualised files.
    Files,
    /// Volumes that are being deleted.
    Trash,
}

impl Kind {
    /// As the API tells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volumes => "volumes",
            Self::Record => "record",
            Self::Files => "files",
            Self::Trash => "trash",
        }
    }
}

/// What is, or was, to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It stays: it may have an owner.
    Keep,
    /// It goes.
    Remove,
}

/// Something that is left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub kind: Kind,
    /// Of which container, if that is known.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// Why it counts as left over, or why it stays.
    pub reason: String,
    /// What is to be done with it.
    pub action: Action,
    /// Removing it was tried, and this is why it failed.
    pub failure: Option<String>,
}

impl Manager {
    /// Finds what is left over. Changes nothing.
    pub fn leftovers(&self) -> io::Result<Vec<Leftover>> {
        let records = self.records();
        let volumes = self.data_root.join("volumes");
        let mut found: Vec<_> = records.iter().filter_map(|r| of_stopped(r, &volumes)).collect();
        found.extend(records.iter().filter(|record| is_abandoned(record)).map(|record| Leftover {
            kind: Kind::Container,
            id: record.id.clone(),
            path: record.state_dir.clone(),
            reason: "its engine has removed it, and its runtime has not deleted it".to_owned(),
            action: Action::Remove,
            failure: None,
        }));
        for path in entries(&volumes)? {
            found.extend(of_directory(path, &records));
        }
        let corrupt = |path: &PathBuf| path.extension().is_some_and(|e| e == "corrupt");
        found.extend(entries(&self.data_root.join("containers"))?.into_iter().filter(corrupt).map(
            |path| Leftover {
                kind: Kind::Record,
                id: String::new(),
                reason: "it could not be read and was set aside; remove it when you have looked at it"
                    .to_owned(),
                path,
                action: Action::Keep,
                failure: None,
            },
        ));
        found.extend(of_files(&records));
        Ok(found)
    }

    /// Finds what is left over and removes what can be removed.
    pub fn collect(&self) -> io::Result<Vec<Leftover>> {
        let mut found = self.leftovers()?;
        for leftover in found.iter_mut().filter(|l| l.action == Action::Remove) {
            leftover.failure = self.remove(leftover).err();
        }
        Ok(found)
    }

    fn remove(&self, leftover: &Leftover) -> Result<(), String> {
        match leftover.kind {
            Kind::Files => self.fs.remove(&leftover.id),
            Kind::Container => self.sweep_abandoned(),
            Kind::Trash => self.volumes.empty_trash(),
            Kind::Volumes => {
                self.adopt_orphans().map_err(|e| e.to_string())?;
                self.sweep_one(&leftover.id);
                if fs::symlink_metadata(&leftover.path).is_ok() {
                    return Err("it is still there; the log of sysbox-mgr says why".to_owned());
                }
            }
            Kind::Record => {}
        }
        Ok(())
    }
}

/// The paths in a directory.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// The volumes of a stopped container whose engine does not have it any more.
fn of_stopped(record: &Record, volumes: &Path) -> Option<Leftover> {
    let owner = record.owner.as_ref().filter(|_| !record.is_live())?;
    let at = owner.path.display();
    let (reason, action) = match owner.presence() {
        Presence::Present => return None,
        Presence::Gone => (format!("the engine has removed {at}"), Action::Remove),
        Presence::Unknown => {
            (format!("the file system of {at} can't be seen; is it mounted?"), Action::Keep)
        }
    };
    let (id, path) = (record.id.clone(), volumes.join(&record.id));
    Some(Leftover { kind: Kind::Volumes, id, path, reason, action, failure: None })
}

/// A directory of volumes that no record knows.
fn of_directory(path: PathBuf, records: &[Record]) -> Option<Leftover> {
    let id = path.file_name()?.to_string_lossy().into_owned();
    if records.iter().any(|record| record.id == id) {
        return None;
    }
    let leftover = |kind, id, reason: &str, action| {
        Some(Leftover {
            kind,
            id,
            path: path.clone(),
            reason: reason.to_owned(),
            action,
            failure: None,
        })
    };
    if id.starts_with('@') {
        let is_empty = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none());
        let reason = "volumes that were removed are being deleted";
        return if is_empty {
            None
        } else {
            leftover(Kind::Trash, String::new(), reason, Action::Remove)
        };
    }
    match crate::volumes::owner_of(&path).map(|owner| owner.presence()) {
        Ok(Presence::Gone) => leftover(
            Kind::Volumes,
            id,
            "no record, and the engine has removed the container",
            Action::Remove,
        ),
        Ok(Presence::Present | Presence::Unknown) => leftover(
            Kind::Volumes,
            id,
            "the record was lost; taken for a stopped container at the next start of sysbox-mgr",
            Action::Keep,
        ),
        Err(_) => leftover(
            Kind::Volumes,
            id,
            "nothing says whose these are; remove the directory by hand if the container is gone",
            Action::Keep,
        ),
    }
}

/// Containers that `sysbox-fs` serves and nobody has. If it does not run, it serves none.
fn of_files(records: &[Record]) -> Vec<Leftover> {
    let served = FsClient::connect().and_then(|client| client.status());
    let served = served.map(|status| status.containers).unwrap_or_default();
    let unknown =
        served.into_iter().filter(|id| !records.iter().any(|r| r.id == *id && r.is_live()));
    unknown
        .map(|id| Leftover {
            kind: Kind::Files,
            id,
            path: sysbox_ipc::paths::fuse_mountpoint(),
            reason: "sysbox-fs serves files for it, and it does not live".to_owned(),
            action: Action::Remove,
            failure: None,
        })
        .collect()
}
