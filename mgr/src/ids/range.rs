//! Arithmetic on ranges of ids.

/// Ids `start` to `start + count - 1`. Never empty, never beyond the last id (`u32::MAX - 1`; the
/// kernel reserves `u32::MAX` for "no id").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdRange {
    start: u32,
    count: u32,
}

impl IdRange {
    /// One more than the highest usable id.
    pub const LIMIT: u64 = u32::MAX as u64;

    /// The range, or `None` if it is empty or reaches beyond the last id.
    pub fn new(start: u32, count: u32) -> Option<Self> {
        let fits = count > 0 && u64::from(start) + u64::from(count) <= Self::LIMIT;
        fits.then_some(Self { start, count })
    }

    /// The range from `start` up to but not including `end`.
    fn between(start: u64, end: u64) -> Option<Self> {
        let count = end.checked_sub(start)?;
        Self::new(u32::try_from(start).ok()?, u32::try_from(count).ok()?)
    }

    /// First id.
    pub fn start(self) -> u32 {
        self.start
    }

    /// Number of ids.
    pub fn count(self) -> u32 {
        self.count
    }

    /// One more than the last id.
    pub fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.count)
    }

    /// Whether they share an id.
    pub fn overlaps(self, other: Self) -> bool {
        u64::from(self.start) < other.end() && u64::from(other.start) < self.end()
    }

    /// Whether every id of `other` is in this range.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The ids that both have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(u64::from(self.start.max(other.start)), self.end().min(other.end()))
    }

    /// What is left of this range without `other`: nothing, one or two ranges.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let below = Self::between(u64::from(self.start), self.end().min(u64::from(other.start)));
        let above = Self::between(u64::from(self.start).max(other.end()), self.end());
        below.into_iter().chain(above)
    }
}

impl std::fmt::Display for IdRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.start, self.end() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, count: u32) -> IdRange {
        IdRange::new(start, count).unwrap()
    }

    #[test]
    fn the_last_id_is_never_in_a_range() {
        assert_eq!(IdRange::new(u32::MAX, 1), None);
        assert_eq!(IdRange::new(0, u32::MAX).unwrap().end(), IdRange::LIMIT);
        assert_eq!(IdRange::new(5, 0), None);
    }

    #[test]
    fn cutting_out_leaves_the_rest() {
        let cut = |a: IdRange, b| a.without(b).collect::<Vec<_>>();
        assert_eq!(cut(range(10, 10), range(13, 2)), [range(10, 3), range(15, 5)]);
        assert_eq!(cut(range(10, 10), range(0, 12)), [range(12, 8)]);
        assert_eq!(cut(range(10, 10), range(18, 50)), [range(10, 8)]);
        assert_eq!(cut(range(10, 10), range(10, 10)), []);
        assert_eq!(cut(range(10, 10), range(30, 2)), [range(10, 10)]);
        assert_eq!(cut(range(10, 10), range(2, 3)), [range(10, 10)]);
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!range(0, 10).overlaps(range(10, 10)));
        assert!(range(0, 11).overlaps(range(10, 10)));
        assert_eq!(range(0, 10).intersection(range(10, 1)), None);
        assert_eq!(range(0, 10).intersection(range(5, 10)), Some(range(5, 5)));
    }
}
