//! Where the texts of files that are read in parts are, so that the next daemon finds them: a memory
//! that whoever keeps the FUSE device keeps, too.
//!
//! The memory is a table of entries, one for an open file, and [blocks] for the texts. A text is
//! written first, its entry last; an entry counts if its check word fits, so that there is no instant at
//! which half of a text could be found. Nothing here is a system call, but when the memory grows or
//! shrinks. What is free is not written down: it follows from the entries that count.
//!
//! Each container has a share, and there is room for the whole shares of many: none takes another's. A
//! text for which there is no room is the daemon's alone, and ends with it.

mod blocks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;

use blocks::{BLOCKS, Blocks, NONE};
#[cfg(not(test))]
use sysbox_kernel::memory::Shared;
#[cfg(test)]
use tests::Mortal as Shared;

/// Containers that can use all of their share at the same time.
const SHARES: usize = 1024;
/// Entries in a share.
const SHARE_ENTRIES: usize = 4096;
/// Blocks in a share: 1 MiB.
const SHARE_BLOCKS: usize = 1024;

/// Words of an entry: handle, request, key and end, first block and sum, check. A free one has 0 there.
const WORDS: usize = 5;
const ENTRY: usize = WORDS * 8;
const ENTRIES: usize = SHARES * SHARE_ENTRIES;
/// Entries that the memory grows by.
const STEP: usize = 100;

// Where what is. If this layout changes, or what an entry says, so must the memory's name in the
// store: a daemon that knows another one leaves it alone, and has a memory of its own.
const PAGE: usize = 4096;
const MAGIC_AT: usize = 0;
/// The number of the first entry that was never used.
const MARK_AT: usize = 8;
const ENTRIES_AT: usize = PAGE;
const BLOCKS_AT: usize = ENTRIES_AT + ENTRIES * ENTRY;
const SIZE: usize = BLOCKS_AT + blocks::SIZE;
const _: () = assert!(BLOCKS_AT.is_multiple_of(PAGE));

const MAGIC: u64 = u64::from_le_bytes(*b"sysboxt1");

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The open file.
    pub handle: u64,
    /// Its container.
    pub key: u32,
    /// The request that the text was made for.
    pub request: u64,
}

/// An entry, and its text if it has one.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    number: u32,
    key: u32,
    end: usize,
    /// Where the text is; nothing if only its length is kept.
    blocks: Box<[u32]>,
}

impl Kept {
    /// Length of the text, bytes.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether the text is there, and not only its length.
    pub fn has_text(&self) -> bool {
        !self.blocks.is_empty()
    }
}

/// The memory, and what in it is free.
#[derive(Debug)]
pub struct Arena {
    memory: Shared,
    blocks: Blocks,
    /// Entries that are free below the mark, the next one last.
    free: Vec<u32>,
    mark: usize,
    /// Entries that there is memory for.
    reserved: usize,
    shares: HashMap<u32, Share>,
}

/// What a container has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    entries: usize,
    blocks: usize,
}

impl Arena {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let mut memory = Shared::new("sysbox-texts", SIZE)?;
        memory.reserve(0..PAGE)?;
        memory.set_word(MAGIC_AT, MAGIC);
        Ok(Self::of(memory, 0))
    }

    /// That of a dead daemon, and what is in it: entries of handles below `first`.
    ///
    /// # Errors
    /// `InvalidData` if the descriptor is none. (Entries that make no sense are left out.)
    pub fn open(memory: OwnedFd, first: u64) -> io::Result<(Self, Vec<(About, Kept)>)> {
        let memory = Shared::open(memory, SIZE)?;
        let (magic, mark) = (memory.word(MAGIC_AT), memory.word(MARK_AT));
        if magic != MAGIC || mark > ENTRIES as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not begin as it should",
            ));
        }
        let mark = mark as usize;
        let mut arena = Self::of(memory, mark);
        let (mut found, mut handles, mut taken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for number in (0..mark as u32).rev() {
            match arena.look(number, &taken) {
                Some((about, kept)) if about.handle < first && handles.insert(about.handle) => {
                    taken.extend(&kept.blocks);
                    arena.count(&about, &kept);
                    found.push((about, kept));
                }
                _ => {
                    arena.memory.set_word(check_at(number), 0);
                    arena.free.push(number);
                }
            }
        }
        arena.blocks = Blocks::adopt(&mut arena.memory, &taken)?;
        Ok((arena, found))
    }

    fn of(memory: Shared, mark: usize) -> Self {
        let (blocks, free, shares) = (Blocks::default(), Vec::new(), HashMap::new());
        Self { memory, blocks, free, mark, reserved: 0, shares }
    }

    /// The memory, for whoever is to hold it open.
    pub fn memory(&self) -> &OwnedFd {
        self.memory.file()
    }

    /// Keeps a text, which is not empty. `None`: there is no room.
    pub fn keep(&mut self, about: About, text: &[u8]) -> Option<Kept> {
        let count = blocks::count(text.len());
        if count == 0 || !self.has_room(about.key, count) {
            return None;
        }
        let blocks = self.blocks.take(&mut self.memory, count)?;
        blocks::write(&mut self.memory, &blocks, text);
        self.enter(about, text.len(), blocks, sum(text))
    }

    /// Keeps how long a text was, and no text. `None`: there is no room.
    pub fn keep_end(&mut self, about: About, end: usize) -> Option<Kept> {
        if !self.has_room(about.key, 0) {
            return None;
        }
        self.enter(about, end, Box::default(), 0)
    }

    /// A part of a text, which must have it.
    pub fn read(&self, kept: &Kept, start: usize, end: usize) -> Vec<u8> {
        blocks::read(&self.memory, &kept.blocks, start, end)
    }

    /// Lets go of an entry and its text.
    pub fn release(&mut self, kept: Kept) {
        // From here on nobody finds the text, and its blocks may have others.
        self.memory.set_word(check_at(kept.number), 0);
        self.free.push(kept.number);
        if let Some(share) = self.shares.get_mut(&kept.key) {
            share.entries -= 1;
            share.blocks -= kept.blocks.len();
            if *share == Share::default() {
                self.shares.remove(&kept.key);
            }
        }
        self.blocks.free(&mut self.memory, &kept.blocks);
    }

    /// Whether a container may have one more entry with so many blocks.
    fn has_room(&self, key: u32, blocks: usize) -> bool {
        let (entries, others) = self.shares.get(&key).map_or((0, 0), |s| (s.entries, s.blocks));
        entries < SHARE_ENTRIES && others + blocks <= SHARE_BLOCKS
    }

    fn count(&mut self, about: &About, kept: &Kept) {
        let share = self.shares.entry(about.key).or_default();
        share.entries += 1;
        share.blocks += kept.blocks.len();
    }

    /// Writes the entry of a text that is in these blocks.
    fn enter(&mut self, about: About, end: usize, blocks: Box<[u32]>, sum: u32) -> Option<Kept> {
        let Some((number, length)) = self.take_entry().zip(u32::try_from(end).ok()) else {
            self.blocks.free(&mut self.memory, &blocks);
            return None;
        };
        let first = blocks.first().copied().unwrap_or(NONE);
        let words = [about.handle, about.request, join(about.key, length), join(first, sum)];
        for (i, word) in words.into_iter().chain([check(&words)]).enumerate() {
            self.memory.set_word(entry_at(number) + i * 8, word);
        }
        let kept = Kept { number, key: about.key, end, blocks };
        self.count(&about, &kept);
        Some(kept)
    }

    fn take_entry(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        if self.mark == ENTRIES {
            return None;
        }
        if self.mark >= self.reserved {
            let end = (self.mark + STEP).min(ENTRIES);
            self.memory.reserve(ENTRIES_AT + self.mark * ENTRY..ENTRIES_AT + end * ENTRY).ok()?;
            self.reserved = end;
        }
        self.mark += 1;
        self.memory.set_word(MARK_AT, self.mark as u64);
        Some(self.mark as u32 - 1)
    }

    /// What an entry holds, if that makes sense; `taken`: blocks that others have.
    fn look(&self, number: u32, taken: &BTreeSet<u32>) -> Option<(About, Kept)> {
        let word = |i: usize| self.memory.word(entry_at(number) + i * 8);
        let words = [word(0), word(1), word(2), word(3)];
        if word(4) != check(&words) {
            return None;
        }
        let (handle, request) = (words[0], words[1]);
        let ((key, end), (first, expected)) = (split(words[2]), split(words[3]));
        let end = end as usize;
        let mut chain = Vec::new();
        if first != NONE {
            if blocks::count(end) > SHARE_BLOCKS {
                return None;
            }
            let links =
                std::iter::successors(Some(first), |block| blocks::next(&self.memory, *block));
            chain.extend(links.take(blocks::count(end)));
            let fits = |block: &u32| (*block as usize) < BLOCKS && !taken.contains(block);
            if chain.len() < blocks::count(end)
                || !chain.iter().all(fits)
                || sum(&blocks::read(&self.memory, &chain, 0, end)) != expected
            {
                return None;
            }
        }
        Some((About { handle, key, request }, Kept { number, key, end, blocks: chain.into() }))
    }
}

fn entry_at(number: u32) -> usize {
    ENTRIES_AT + number as usize * ENTRY
}

fn check_at(number: u32) -> usize {
    entry_at(number) + (WORDS - 1) * 8
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// The check word of an entry; never 0.
fn check(words: &[u64; WORDS - 1]) -> u64 {
    words.iter().fold(MAGIC, |sum, word| mix(sum, *word)) | 1
}

/// Shows whether a text is the one that was written.
fn sum(text: &[u8]) -> u32 {
    let (words, rest) = text.as_chunks();
    let sum = words.iter().fold(MAGIC, |sum, word| mix(sum, u64::from_ne_bytes(*word)));
    (rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte))) >> 32) as u32
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
