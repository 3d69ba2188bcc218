//! What outlives the manager: the seccomp listeners of all containers, and the journal of the
//! requests that are being served. The [store](sysbox_ipc::store) keeps them.
//!
//! A listener has a number, which is never used again while the store lives: the journal names it
//! by that. In the store it is called `listener-NUMBER-KEY-PID-START`: key of its container, process
//! that it was made for.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sysbox_ipc::store::{self, Daemon, Store};
use sysbox_kernel::notify::{Journal, Taking};

use crate::registry::Process;
use crate::sync::lock;

/// The journal's name in the store.
const JOURNAL: &str = "journal";

/// Which listener it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    number: u64,
    key: u32,
    process: Process,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, key, process: Process { pid, start_time } } = self;
        write!(f, "listener-{number}-{key}-{pid}-{start_time}")
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        fn part<T: FromStr>(parts: &mut std::str::Split<'_, char>) -> Result<T, ()> {
            parts.next().and_then(|part| part.parse().ok()).ok_or(())
        }
        let mut parts = name.strip_prefix("listener-").ok_or(())?.split('-');
        let (number, key) = (part(&mut parts)?, part(&mut parts)?);
        let process = Process { pid: part(&mut parts)?, start_time: part(&mut parts)? };
        Ok(Self { number, key, process })
    }
}

/// A listener that an earlier manager has served, and what that one has left undone.
#[derive(Debug)]
pub struct Orphan {
    /// Its number.
    pub number: u64,
    /// The listener.
    pub fd: OwnedFd,
    /// Requests that were taken and not answered.
    pub left: Vec<Taking>,
}

#[derive(Debug, Default)]
struct State {
    /// What the store has, by number.
    names: BTreeMap<u64, Name>,
    /// Those that nobody serves yet.
    orphans: BTreeMap<u64, Orphan>,
    journal_is_kept: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Kept {
    store: Store,
    journal: Arc<Journal>,
    next: AtomicU64,
    state: Mutex<State>,
}

impl Kept {
    /// Finds what an earlier manager left, if one did.
    ///
    /// # Errors
    /// No descriptors or no memory left.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let (store, found) = Store::open(Daemon::MGR, run_dir)?;
        store.watch()?;
        let mut state = State::default();
        let mut journal = None;
        for (name, fd) in found {
            if name == JOURNAL {
                journal = Some(fd);
            } else if let Ok(name) = name.parse::<Name>() {
                let orphan = Orphan { number: name.number, fd, left: Vec::new() };
                state.names.insert(name.number, name);
                state.orphans.insert(name.number, orphan);
            }
        }
        state.journal_is_kept = journal.is_some();
        let (journal, left) = match journal {
            Some(memory) => Journal::open(memory).or_else(|e| {
                tracing::warn!("calls that were being served may hang: their journal: {e}");
                store.release(JOURNAL);
                state.journal_is_kept = false;
                Journal::new().map(|journal| (journal, Vec::new()))
            })?,
            None => (Journal::new()?, Vec::new()),
        };
        for taking in left {
            // Without its listener nobody waits for it.
            if let Some(orphan) = state.orphans.get_mut(&taking.listener()) {
                orphan.left.push(taking);
            }
        }
        if !state.orphans.is_empty() {
            tracing::info!(listeners = state.orphans.len(), "found what the last manager served");
        }
        let next = state.names.keys().next_back().map_or(1, |last| last + 1);
        Ok(Self { store, journal, next: AtomicU64::new(next), state: Mutex::new(state) })
    }

    /// What requests are to be taken into.
    pub fn journal(&self) -> Arc<Journal> {
        self.journal.clone()
    }

    /// Keeps a new listener and gives it a number. `None`: it is known already; a runtime that saw
    /// the last manager die sends it again.
    ///
    /// If it can't be kept, the log says so; it will be served nevertheless.
    pub fn keep(&self, key: u32, process: Process, fd: BorrowedFd<'_>) -> Option<u64> {
        let name = {
            let mut state = lock(&self.state);
            if state.names.values().any(|name| (name.key, name.process) == (key, process)) {
                return None;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let name = Name { number, key, process };
            state.names.insert(number, name);
            name
        };
        let kept = self.keep_journal().and_then(|()| self.store.keep(&name.to_string(), fd));
        if let Err(e) = kept.and_then(|()| self.store.settle()) {
            tracing::warn!("mounts in a container will hang if sysbox-mgr dies: {e}");
        }
        Some(name.number)
    }

    /// Not before it is needed: a manager without containers needs no holder.
    fn keep_journal(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if !state.journal_is_kept {
            self.store.keep(JOURNAL, self.journal.memory().as_fd())?;
            state.journal_is_kept = true;
        }
        Ok(())
    }

    /// The orphans of a container: from now on the caller serves them.
    pub fn adopt(&self, key: u32) -> Vec<Orphan> {
        let mut state = lock(&self.state);
        let State { names, orphans, .. } = &mut *state;
        let of_it = |number: &u64| names.get(number).is_some_and(|name| name.key == key);
        let numbers: Vec<u64> = orphans.keys().copied().filter(of_it).collect();
        numbers.iter().filter_map(|number| orphans.remove(number)).collect()
    }

    /// Lets go of the orphans of containers that are gone: `lives` says which are not.
    pub fn retain(&self, lives: impl Fn(u32) -> bool) {
        let gone: Vec<u64> = {
            let state = lock(&self.state);
            let is_gone = |number: &&u64| state.names.get(number).is_none_or(|n| !lives(n.key));
            state.orphans.keys().filter(is_gone).copied().collect()
        };
        gone.into_iter().for_each(|number| self.ended(number));
    }

    /// No task is left under the filter of a listener.
    pub fn ended(&self, number: u64) {
        let name = {
            let mut state = lock(&self.state);
            state.orphans.remove(&number);
            state.names.remove(&number)
        };
        if let Some(name) = name {
            self.store.release(&name.to_string());
        }
    }

    /// At a planned end: if there is nothing for a next manager, nobody needs to keep anything.
    pub fn end(&self, run_dir: &Path) {
        if lock(&self.state).names.is_empty() {
            store::release_all(Daemon::MGR, run_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let name = Name { number: 7, key: 3, process: Process { pid: 12, start_time: 99 } };
        assert_eq!(name.to_string(), "listener-7-3-12-99");
        assert_eq!(name.to_string().parse(), Ok(name));
        for other in ["journal", "listener-", "listener-1-2-3", "listener-1-2-x-4"] {
            assert_eq!(other.parse::<Name>(), Err(()), "{other}");
        }
    }
}
