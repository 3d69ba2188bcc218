//! Exclusive ranges of host ids.
//!
//! Each container gets ids that no other container and no other user has, so that a process that
//! escapes from one can do nothing to another. The ids come from the entries of one user (`sysbox`)
//! in /etc/subuid and /etc/subgid, which is how the host's administrators and tools know that they
//! are taken.
//!
//! An engine may give mappings of its own, and a container may join the user namespace of another
//! (a pod): then [`sharing`] says who may have the same ids as whom.
//!
//! `range`, `subid`, `pool`, `mapping` and `sharing` decide and touch nothing; `files`, `lock` and
//! `in_use` read and write the host.

mod elsewhere;
mod files;
mod in_use;
mod lock;
mod mapping;
mod pool;
mod range;
pub mod sharing;
mod subid;

pub use files::SubidFiles;
pub use mapping::{IdMapping, host_ranges, host_root, validate};
pub use pool::{Exhausted, Pool};
pub use range::IdRange;
pub use sharing::{Holder, Sharing};
pub use subid::SLOT;

use crate::error::{Error, Result};

/// Hands out ranges. Which are taken is told by the caller (the registry knows).
#[derive(Debug)]
pub struct Ids {
    files: SubidFiles,
    pool: Pool,
    /// What every container gets, if the manager itself is in a container.
    shared: Option<IdRange>,
    /// Ranges that processes used at start though no record says so.
    quarantined: Vec<IdRange>,
    /// Where the last range ended: the search goes on there.
    after: u64,
}

impl Ids {
    /// Reads the files; writes entries for our user if there are none.
    ///
    /// `recorded`: the ranges of the containers that the registry knows.
    pub fn open(files: SubidFiles, recorded: &[IdRange]) -> Result<Self> {
        // The kernel lets nobody ID-map a mount inside of a user namespace (it asks for rights over the
        // file system, which is the host's): files keep the ids that they have in the outer container, and
        // so must the processes.
        if let Some(range) = elsewhere::of_outer_container() {
            tracing::warn!(
                ids = %range,
                "this manager is in a container, where no files can be ID-mapped: all containers get the \
                 ids of that one; user namespaces of their own keep them apart, ids do not"
            );
            let (pool, quarantined, after) = (Pool::default(), Vec::new(), 0);
            return Ok(Self { files, pool, shared: Some(range), quarantined, after });
        }
        let pool = files.ensure()?;
        let unknown = |r: &IdRange| {
            pool.ranges().iter().any(|p| p.overlaps(*r)) && !recorded.iter().any(|k| k.contains(*r))
        };
        let quarantined: Vec<_> = in_use::ranges().into_iter().filter(unknown).collect();
        for range in &quarantined {
            tracing::warn!(ids = %range, "processes use ids of ours that no record names; they are not given out");
        }
        let after = recorded.iter().map(|r| r.end()).max().unwrap_or(0);
        Ok(Self { files, pool, shared: None, quarantined, after })
    }

    /// Where the ranges come from.
    pub fn files(&self) -> &SubidFiles {
        &self.files
    }

    /// The ids that all containers have in common, because the manager is in a container itself.
    pub fn shared(&self) -> Option<IdRange> {
        self.shared
    }

    /// Whether a range of `wanted` ids is free beside `used`.
    pub fn has_room(&self, used: &[IdRange], wanted: u32) -> bool {
        self.shared.is_some() || self.pool.allocate(&self.taken(used), wanted, 0).is_ok()
    }

    fn taken(&self, used: &[IdRange]) -> Vec<IdRange> {
        used.iter().chain(&self.quarantined).copied().collect()
    }

    /// A range of at least `wanted` ids (0: one slot) that overlaps none of `used`.
    ///
    /// When none is free the files are read again first, so that an entry that was just added (by
    /// [`SubidFiles::grow`], or by hand) counts.
    pub fn allocate(&mut self, used: &[IdRange], wanted: u32) -> Result<IdRange> {
        let taken = self.taken(used);
        let found = self.pool.allocate(&taken, wanted, self.after).or_else(|_| {
            self.pool = self.files.pool()?;
            self.pool.allocate(&taken, wanted, self.after).map_err(|e| self.exhausted(e))
        })?;
        self.after = found.end();
        Ok(found)
    }

    fn exhausted(&self, e: Exhausted) -> Error {
        let (uids, gids) = (self.files.uids.display(), self.files.gids.display());
        let user = &self.files.user;
        let (wanted, total, in_use) = (e.wanted.max(SLOT), e.total, e.in_use);
        let unknown = match self.quarantined.len() {
            0 => String::new(),
            n => format!(" (up to {n} of them by processes that belong to no container of ours)"),
        };
        Error::new(format!(
            "no range of {wanted} ids is free: {uids} and {gids} give user {user} room for {total} such ranges, and {in_use} are in use{unknown}"
        ))
        .remedy(format!("delete containers, or {}", self.files.advice(wanted)))
    }
}
