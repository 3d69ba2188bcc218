//! The subordinate id files on disk: reading them, and giving our user entries if it has none.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::IdRange;
use super::elsewhere;
use super::lock::{SubidLock, replace};
use super::pool::Pool;
use super::subid::{self, Entry, SLOT};
use crate::error::{Doing as _, Error, Result};

/// Where the entries are and whose are ours.
#[derive(Clone, Debug)]
pub struct SubidFiles {
    /// subuid(5).
    pub uids: PathBuf,
    /// subgid(5).
    pub gids: PathBuf,
    /// Owner of our entries.
    pub user: String,
    /// Entries are never added.
    pub fixed: bool,
}

/// Text and entries of one file.
struct Contents {
    text: String,
    entries: Vec<Entry>,
}

impl SubidFiles {
    /// The pool of ids that the files give us now.
    pub fn pool(&self) -> Result<Pool> {
        let owned = self.owned();
        let pool = Pool::new(&read(&self.uids)?.entries, &read(&self.gids)?.entries, owned);
        Ok(pool.without(&elsewhere::unmapped()))
    }

    /// Like [`pool`](Self::pool); gives our user entries first if the pool would be empty.
    pub fn ensure(&self) -> Result<Pool> {
        let pool = self.pool()?;
        if !pool.ranges().is_empty() {
            return Ok(pool);
        }
        if !self.fixed {
            self.add_entries(|pool| !pool.ranges().is_empty(), SLOT)
                .map_err(|e| e.remedy(self.advice(SLOT)))?;
        }
        let pool = self.pool()?;
        if pool.ranges().is_empty() {
            let (uids, gids, user) = (self.uids.display(), self.gids.display(), &self.user);
            return Err(Error::new(format!(
                "{uids} and {gids} give user {user} no id that both have and no one else has"
            ))
            .remedy(self.advice(SLOT)));
        }
        Ok(pool)
    }

    /// Adds an entry if no range of `wanted` ids is free beside `used`, unless that is not wanted.
    pub fn grow(&self, used: &[IdRange], wanted: u32) -> Result<()> {
        let has_room = |pool: &Pool| pool.allocate(used, wanted, 0).is_ok();
        if self.fixed || has_room(&self.pool()?) {
            return Ok(());
        }
        self.add_entries(has_room, wanted)
    }

    /// What to write, and where, for more containers with so many ids.
    pub fn advice(&self, wanted: u32) -> String {
        let (uids, gids) = (self.uids.display(), self.gids.display());
        let taken = || -> Result<Vec<IdRange>> {
            let (u, g) = (read(&self.uids)?, read(&self.gids)?);
            Ok(u.entries.iter().chain(&g.entries).map(|e| e.range).collect())
        };
        let taken = taken().map(|mut taken| {
            taken.extend(elsewhere::taken());
            taken
        });
        match taken.ok().and_then(|taken| subid::free_block(&taken, wanted)) {
            Some(b) => format!(
                "add the line `{}:{}:{}` to both {uids} and {gids}",
                self.user,
                b.start(),
                b.count()
            ),
            None if !elsewhere::unmapped().is_empty() => format!(
                "free ids in {uids} and {gids}; this is a container itself, with the ids of /proc/self/uid_map: start it with more of them (for a system container with SYSBOX_ID_RANGE_SIZE)"
            ),
            None => format!("free ids in {uids} and {gids}: other entries take all of them"),
        }
    }

    /// Entries may name the user by name or by uid.
    fn owned(&self) -> impl Fn(&str) -> bool + use<> {
        let name = self.user.clone();
        let uid = elsewhere::uid_of(&name);
        move |owner| owner == name || uid.as_deref() == Some(owner)
    }

    /// Adds entries, unless by now the files give what is `enough`.
    fn add_entries(&self, enough: impl Fn(&Pool) -> bool, wanted: u32) -> Result<()> {
        let doing = |path: &PathBuf, what| {
            let path = path.display().to_string();
            move || format!("{what} {path}")
        };
        let _uids = SubidLock::take(&self.uids).doing(doing(&self.uids, "locking"))?;
        let _gids = SubidLock::take(&self.gids).doing(doing(&self.gids, "locking"))?;
        // Read again: somebody may have written while we waited for the lock.
        if enough(&self.pool()?) {
            return Ok(());
        }
        let (uids, gids) = (read(&self.uids)?, read(&self.gids)?);
        let (new_uids, new_gids, block) = self.missing_entries(&uids, &gids, wanted)?;
        for (path, old, new) in
            [(&self.uids, &uids.text, new_uids), (&self.gids, &gids.text, new_gids)]
        {
            if *old != new {
                replace(path, &new).doing(doing(path, "adding an entry to"))?;
                tracing::info!(file = %path.display(), ids = %block, user = self.user, "added an entry");
            }
        }
        Ok(())
    }

    /// The two texts with our entry: one that stands in only one of them is copied to the other if it
    /// is free there; otherwise both get the same new block.
    fn missing_entries(
        &self,
        uids: &Contents,
        gids: &Contents,
        wanted: u32,
    ) -> Result<(String, String, IdRange)> {
        let owned = self.owned();
        let alone = |have: &Contents, lack: &Contents| {
            let free = |r: IdRange| !lack.entries.iter().any(|e| e.range.overlaps(r));
            let own = have.entries.iter().filter(|e| owned(&e.owner)).map(|e| e.range);
            own.filter(|r| r.start() > 0 && r.count() >= wanted && free(*r))
                .max_by_key(|r| r.count())
        };
        if let Some(range) = alone(uids, gids) {
            return Ok((
                uids.text.clone(),
                subid::with_entry(&gids.text, &self.user, range),
                range,
            ));
        }
        if let Some(range) = alone(gids, uids) {
            return Ok((
                subid::with_entry(&uids.text, &self.user, range),
                gids.text.clone(),
                range,
            ));
        }
        let entries = uids.entries.iter().chain(&gids.entries).map(|e| e.range);
        let taken: Vec<_> = entries.chain(elsewhere::taken()).collect();
        let block = subid::free_block(&taken, wanted).ok_or_else(|| {
            let (u, g) = (self.uids.display(), self.gids.display());
            Error::new(format!("no block of {wanted} ids is free in {u} and {g}"))
        })?;
        Ok((
            subid::with_entry(&uids.text, &self.user, block),
            subid::with_entry(&gids.text, &self.user, block),
            block,
        ))
    }
}

fn read(path: &PathBuf) -> Result<Contents> {
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.doing(|| format!("reading {}", path.display()))?,
    };
    let entries = subid::parse(&text);
    Ok(Contents { text, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &tempfile::TempDir, uids: &str, gids: &str) -> SubidFiles {
        let files = SubidFiles {
            uids: dir.path().join("subuid"),
            gids: dir.path().join("subgid"),
            user: "sysbox".into(),
            fixed: false,
        };
        fs::write(&files.uids, uids).unwrap();
        fs::write(&files.gids, gids).unwrap();
        files
    }

    #[test]
    fn absent_entries_are_made_the_same_in_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir, "me:100000:65536\nyou:300000:10\n", "we:1000000:65536\n");
        let pool = files.ensure().unwrap();
        // Where exactly depends on what runs on the machine.
        let [range] = pool.ranges() else { panic!("{pool:?}") };
        assert!(range.start() >= 1_065_536 && range.count() == 268_435_456, "{range}");
        let line = format!("sysbox:{}:268435456\n", range.start());
        assert!(fs::read_to_string(&files.uids).unwrap().ends_with(&line));
        assert!(fs::read_to_string(&files.gids).unwrap().ends_with(&line));
        assert_eq!(files.ensure().unwrap(), pool, "a second time changes nothing");
        assert_eq!(fs::read_to_string(&files.gids).unwrap().lines().count(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no lock is left");
    }

    #[test]
    fn an_entry_that_only_one_file_has_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir, "sysbox:500000:65536\n", "");
        assert_eq!(files.ensure().unwrap().ranges(), [IdRange::new(500_000, 65536).unwrap()]);
        assert_eq!(fs::read_to_string(&files.gids).unwrap(), "sysbox:500000:65536\n");
    }

    #[test]
    fn an_entry_that_is_used_up_gets_another_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        // As earlier releases of Sysbox leave it: one range for all containers.
        let mut files = files(&dir, "sysbox:231072:65536\n", "sysbox:231072:65536\n");
        let used = files.pool().unwrap().allocate(&[], 0, 0).unwrap();
        files.grow(&[], 0).unwrap();
        assert_eq!(fs::read_to_string(&files.uids).unwrap().lines().count(), 1, "there is room");

        files.fixed = true;
        files.grow(&[used], 0).unwrap();
        assert!(files.pool().unwrap().allocate(&[used], 0, 0).is_err());
        files.fixed = false;
        files.grow(&[used], 0).unwrap();
        let text = fs::read_to_string(&files.uids).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(text, fs::read_to_string(&files.gids).unwrap());
        let second = files.pool().unwrap().allocate(&[used], 0, 0).unwrap();
        assert!(!second.overlaps(used));

        // More than a block of the usual size.
        let huge = 5000 * SLOT;
        files.grow(&[used], huge).unwrap();
        assert_eq!(files.pool().unwrap().allocate(&[used], huge, 0).unwrap().count(), huge);
    }

    #[test]
    fn an_entry_that_another_user_has_too_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(&dir, "sysbox:500000:65536\n", "me:500000:65536\n");
        let pool = files.ensure().unwrap();
        assert!(!pool.ranges().is_empty());
        let foreign = IdRange::new(500_000, 65536).unwrap();
        assert!(!pool.ranges().iter().any(|r| r.overlaps(foreign)));
    }
}
