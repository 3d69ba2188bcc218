//! The containers on disk: one JSON file each, so that a daemon that starts again serves them on,
//! one with what it wrote to settings, and one file with what is [remembered](Progress) of all. What a
//! container that ended wrote to settings is kept until it is started again, or gone for good.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::container::{Progress, Record};
use crate::settings::Values;

/// File of what is remembered; no container's, as it does not end in ".json".
const PROGRESS: &str = "progress";
/// End of the names of containers' files.
const RECORD: &str = "json";
/// End of the names of files with settings.
const SETTINGS: &str = "settings";
/// End of the names of files with settings of containers that ended.
const KEPT: &str = "kept";
/// Containers that ended whose settings are kept. Which of them will never be started again nobody
/// tells us, so those that ended first are forgotten.
const MAX_KEPT: usize = 1000;

/// Settings of a container that ended.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// That of its [`Record`].
    lifetime: String,
    values: Values,
}

/// A directory with one file for each container.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the directory, makes it if it is not there.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Writes a container's file.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.id, RECORD)?;
        replace(&path, &serde_json::to_vec_pretty(record)?)
    }

    /// Writes what is remembered, by key.
    pub fn save_progress(&self, progress: &HashMap<u32, Progress>) -> io::Result<()> {
        replace(&self.dir.join(PROGRESS), &serde_json::to_vec(progress)?)
    }

    /// What was remembered, by key; nothing if that can't be understood.
    pub fn load_progress(&self) -> HashMap<u32, Progress> {
        let text = fs::read(self.dir.join(PROGRESS)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes what a container wrote to settings.
    pub fn save_settings(&self, id: &str, values: &Values) -> io::Result<()> {
        replace(&self.path(id, SETTINGS)?, &serde_json::to_vec_pretty(values)?)
    }

    /// What a container wrote to settings; nothing if that can't be understood.
    pub fn load_settings(&self, id: &str) -> Values {
        let read = || -> io::Result<Values> {
            match fs::read(self.path(id, SETTINGS)?) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Values::default()),
                text => Ok(serde_json::from_slice(&text?)?),
            }
        };
        read().unwrap_or_else(|e| {
            tracing::warn!("container {id}: its settings are lost: {e}");
            Values::default()
        })
    }

    /// Removes a container's files; they need not exist.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.remove_settings(id)?;
        remove(&self.path(id, RECORD)?)
    }

    /// Removes what a container wrote to settings; that need not exist.
    pub fn remove_settings(&self, id: &str) -> io::Result<()> {
        remove(&self.path(id, SETTINGS)?)
    }

    /// Keeps the settings of a container that ends, for when it is started again.
    pub fn keep_settings(&self, record: &Record, values: &Values) -> io::Result<()> {
        if values.is_empty() || record.lifetime.is_empty() {
            return Ok(());
        }
        let kept = Kept { lifetime: record.lifetime.clone(), values: values.clone() };
        replace(&self.path(&record.id, KEPT)?, &serde_json::to_vec(&kept)?)?;
        let mut all: Vec<_> = fs::read_dir(&self.dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == KEPT))
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        all.sort();
        let surplus = all.len().saturating_sub(MAX_KEPT);
        all.iter().take(surplus).try_for_each(|(_, path)| remove(path))
    }

    /// The settings that were kept of an earlier life of this container; nothing if there was none.
    pub fn take_kept_settings(&self, record: &Record) -> io::Result<Values> {
        let path = self.path(&record.id, KEPT)?;
        let Ok(text) = fs::read(&path) else { return Ok(Values::default()) };
        remove(&path)?;
        match serde_json::from_slice::<Kept>(&text) {
            Ok(kept) if kept.lifetime == record.lifetime => Ok(kept.values),
            // Another container of the same name.
            _ => Ok(Values::default()),
        }
    }

    /// All containers. Files that can't be understood are set aside, as `*.corrupt`, and told of: one
    /// bad file keeps no other container from being served.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != RECORD) {
                continue;
            }
            match fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(record) => records.push(record),
                Err(e) => {
                    let aside = path.with_extension("corrupt");
                    let moved = fs::rename(&path, &aside);
                    let (path, aside) = (path.display(), aside.display());
                    match moved {
                        Ok(()) => tracing::warn!("{path}: {e}; set aside as {aside}"),
                        Err(why) => tracing::warn!("{path}: {e}; can't be set aside: {why}"),
                    }
                }
            }
        }
        Ok(records)
    }

    fn path(&self, id: &str, end: &str) -> io::Result<PathBuf> {
        if !is_file_name(id) {
            let message =
                format!("{id:?} is no container id: letters, digits and _+-. are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.dir.join(format!("{id}.{end}")))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Replaces a file's text: it holds either the old or the new one at any instant.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Whether an id is what OCI runtimes take, and so fit to be a file's name.
fn is_file_name(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    !id.is_empty() && id.len() <= 240 && !id.starts_with('.') && id.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            id: id.into(),
            key: 7,
            uid: 231072,
            gid: 231072,
            unified: "/sys/fs/cgroup/a".into(),
            v1: vec![("memory".into(), "/sys/fs/cgroup/memory/a".into())],
            created_boottime_ns: 1,
            lifetime: "root".into(),
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        store.save(&record("a.b-c")).unwrap();
        fs::write(dir.path().join("state/bad.json"), "{").unwrap();
        assert_eq!(store.load().unwrap(), [record("a.b-c")]);
        assert!(dir.path().join("state/bad.corrupt").exists(), "it is set aside");
        store.remove("a.b-c").unwrap();
        store.remove("a.b-c").unwrap();
        assert_eq!(store.load().unwrap(), []);
    }

    #[test]
    fn settings_wait_for_the_same_container_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let values: Values = serde_json::from_str(r#"{"proc/sys/kernel/panic":"7\n"}"#).unwrap();
        let other = Record { lifetime: "another".into(), ..record("a") };
        store.keep_settings(&record("a"), &values).unwrap();
        assert_eq!(store.take_kept_settings(&record("a")).unwrap(), values);
        assert!(store.take_kept_settings(&record("a")).unwrap().is_empty());
        store.keep_settings(&record("a"), &values).unwrap();
        assert!(store.take_kept_settings(&other).unwrap().is_empty());
        store.keep_settings(&Record { lifetime: String::new(), ..record("a") }, &values).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn they_do_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let values: Values = serde_json::from_str(r#"{"proc/sys/kernel/panic":"7\n"}"#).unwrap();
        for i in 0..MAX_KEPT {
            fs::write(dir.path().join(format!("old{i}.{KEPT}")), "").unwrap();
        }
        store.keep_settings(&record("a"), &values).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_KEPT);
        assert_eq!(store.take_kept_settings(&record("a")).unwrap(), values);
    }

    #[test]
    fn ids_are_no_paths() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for id in ["", "../x", "a/b", ".hidden", "a\0b", "a\n"] {
            assert!(store.save(&record(id)).is_err(), "{id:?}");
        }
    }
}
