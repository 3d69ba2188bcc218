//! Handing out exclusive ranges (pure).
//!
//! The pool keeps no account of what is given: the caller says what is in use, which it knows from
//! the records on disk. So there is one truth, and a crash at any moment cannot make the two differ.

use super::IdRange;
use super::subid::{Entry, SLOT};

/// The ids that may be given to containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Sorted, disjoint.
    ranges: Vec<IdRange>,
}

/// No free range of the wanted size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Ids that were wanted.
    pub wanted: u32,
    /// Ranges of that size that the pool has, used or not.
    pub total: u32,
    /// Ranges of that size that are in use at least in part.
    pub in_use: u32,
}

impl Pool {
    /// Ids that `owned` says to be ours in both files and that nobody else's entry touches in either.
    /// A container's uids and gids are the same numbers, hence the intersection. Id 0 is never in it.
    pub fn new(uids: &[Entry], gids: &[Entry], owned: impl Fn(&str) -> bool) -> Self {
        let ours = |entries: &[Entry]| -> Vec<IdRange> {
            entries.iter().filter(|e| owned(&e.owner)).map(|e| e.range).collect()
        };
        let (our_uids, our_gids) = (ours(uids), ours(gids));
        let mut ranges: Vec<IdRange> = Vec::new();
        for range in
            our_uids.iter().flat_map(|u| our_gids.iter().filter_map(|g| u.intersection(*g)))
        {
            // Entries of ours may overlap each other: count no id twice.
            let mut new = vec![range];
            for seen in &ranges {
                new = new.into_iter().flat_map(|r| r.without(*seen)).collect();
            }
            ranges.extend(new);
        }
        let root = IdRange::new(0, 1);
        let others = uids.iter().chain(gids).filter(|e| !owned(&e.owner)).map(|e| e.range);
        for foreign in others.chain(root) {
            ranges = ranges.into_iter().flat_map(|r| r.without(foreign)).collect();
        }
        ranges.sort_unstable();
        Self { ranges }
    }

    /// The pool without these ids.
    #[must_use]
    pub fn without(mut self, ids: &[IdRange]) -> Self {
        for cut in ids {
            self.ranges = self.ranges.into_iter().flat_map(|r| r.without(*cut)).collect();
        }
        self
    }

    /// The ranges of the pool.
    pub fn ranges(&self) -> &[IdRange] {
        &self.ranges
    }

    /// A range of `wanted` ids (rounded up to whole slots) that touches none of `used`.
    ///
    /// The search goes round the pool from `after` on, so that a freed range rests for as long as
    /// possible before another container gets its ids.
    pub fn allocate(
        &self,
        used: &[IdRange],
        wanted: u32,
        after: u64,
    ) -> Result<IdRange, Exhausted> {
        let exhausted = || self.exhausted(used, wanted);
        let size = wanted.max(1).checked_next_multiple_of(SLOT).ok_or_else(exhausted)?;
        self.first_fit(used, size, after)
            .or_else(|| self.first_fit(used, size, 0))
            .ok_or_else(exhausted)
    }

    fn first_fit(&self, used: &[IdRange], size: u32, after: u64) -> Option<IdRange> {
        self.ranges.iter().find_map(|pool| {
            let mut start = on_grid(*pool, after.max(u64::from(pool.start())))?;
            loop {
                let candidate = IdRange::new(u32::try_from(start).ok()?, size)?;
                if !pool.contains(candidate) {
                    return None;
                }
                match used.iter().filter(|u| u.overlaps(candidate)).map(|u| u.end()).max() {
                    Some(end) => start = on_grid(*pool, end)?,
                    None => return Some(candidate),
                }
            }
        })
    }

    fn exhausted(&self, used: &[IdRange], wanted: u32) -> Exhausted {
        let size = wanted.max(1).checked_next_multiple_of(SLOT).unwrap_or(u32::MAX);
        // The pool cut into pieces of that size; a piece is in use if any of its ids is.
        let pieces = self.ranges.iter().flat_map(|pool| {
            (0..pool.count() / size)
                .filter_map(move |n| IdRange::new(pool.start() + n * size, size))
        });
        let (mut total, mut in_use) = (0, 0);
        for piece in pieces {
            total += 1;
            in_use += u32::from(used.iter().any(|u| u.overlaps(piece)));
        }
        Exhausted { wanted, total, in_use }
    }
}

/// The first slot of `pool` at or after `id`.
fn on_grid(pool: IdRange, id: u64) -> Option<u64> {
    let base = u64::from(pool.start());
    let offset = id.checked_sub(base)?.next_multiple_of(u64::from(SLOT));
    Some(base + offset)
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
