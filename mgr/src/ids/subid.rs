//! The text of subuid(5) and subgid(5) files, and where in them a new block fits (pure).

use super::IdRange;

/// Ids of one container, and the grid on which ranges are handed out.
pub const SLOT: u32 = 65536;

/// No block of ours starts below: the ids under it are those that distributions give to people's
/// first accounts (useradd starts at 100000), and Sysbox has always started here.
const LOWEST_BLOCK: u64 = 231_072;

/// Slots in a block that we write ourselves: room for this many containers.
const BLOCK_SLOTS: u32 = 4096;

/// One line: `owner:start:count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Login name or uid of the owner, as written.
    pub owner: String,
    /// The ids.
    pub range: IdRange,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?.to_owned();
        let start = fields.next()?.trim().parse().ok()?;
        let count: u64 = fields.next()?.trim().parse().ok()?;
        // A count that reaches beyond the last id still reserves all ids up to it.
        let count = count.min(IdRange::LIMIT.checked_sub(u64::from(start))?);
        let range = IdRange::new(start, u32::try_from(count).ok()?)?;
        Some(Self { owner, range })
    }
}

/// The entries of a file. Lines that are no entry (comments, empty, malformed) are passed over, as
/// shadow-utils does.
pub fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(Entry::parse).collect()
}

/// `text` with a line for `owner` added.
pub fn with_entry(text: &str, owner: &str, range: IdRange) -> String {
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{newline}{owner}:{}:{}\n", range.start(), range.count())
}

/// A block of ids that none of `taken` touches, as large as there is room for up to 4096 ranges, or
/// more if one range of `wanted` ids needs more; `None` if not even that one fits.
pub fn free_block(taken: &[IdRange], wanted: u32) -> Option<IdRange> {
    let fewest = wanted.max(1).div_ceil(SLOT);
    let mut slots = BLOCK_SLOTS.max(fewest);
    loop {
        if let Some(block) = slots.checked_mul(SLOT).and_then(|count| first_free(taken, count)) {
            return Some(block);
        }
        if slots <= fewest {
            return None;
        }
        slots = (slots / 2).max(fewest);
    }
}

fn first_free(taken: &[IdRange], count: u32) -> Option<IdRange> {
    let mut start = LOWEST_BLOCK;
    loop {
        let block = IdRange::new(u32::try_from(start).ok()?, count)?;
        match taken.iter().find(|t| t.overlaps(block)) {
            Some(t) => start = t.end(),
            None => return Some(block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_the_rest_is_passed_over() {
        let entries =
            parse("# comment\nsysbox:231072:65536\n\nbad:x:1\nuser:0:0\n1000:5:4294967296\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].owner, "sysbox");
        assert_eq!(entries[0].range, IdRange::new(231_072, 65536).unwrap());
        assert_eq!(entries[1].range.end(), IdRange::LIMIT);
    }

    #[test]
    fn a_line_is_added_after_a_file_without_final_newline() {
        let range = IdRange::new(7, 9).unwrap();
        assert_eq!(with_entry("a:1:2", "sysbox", range), "a:1:2\nsysbox:7:9\n");
        assert_eq!(with_entry("", "sysbox", range), "sysbox:7:9\n");
    }

    #[test]
    fn a_block_avoids_every_entry() {
        let block = free_block(&[], 0).unwrap();
        assert_eq!((block.start(), block.count()), (231_072, 4096 * SLOT));
        let taken = [IdRange::new(100_000, 200_000).unwrap(), IdRange::new(400_000, 5).unwrap()];
        assert_eq!(free_block(&taken, SLOT).unwrap().start(), 400_005);
    }

    #[test]
    fn a_block_shrinks_to_the_room_there_is() {
        let all_but = IdRange::new(231_072 + 20 * SLOT, 4_000_000_000).unwrap();
        let rest = IdRange::new(4_001_000_000, 293_967_295).unwrap();
        assert_eq!(free_block(&[all_but, rest], 1).unwrap().count(), 16 * SLOT);
        assert_eq!(free_block(&[all_but, rest], 17 * SLOT).unwrap().count(), 17 * SLOT);
        assert_eq!(free_block(&[all_but, rest], 21 * SLOT), None);
        assert_eq!(free_block(&[IdRange::new(0, u32::MAX).unwrap()], 0), None);
    }
}
