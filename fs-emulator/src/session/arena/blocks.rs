//! The blocks that texts are in, and the links that chain those of one text.
//!
//! The links are apart from the blocks: what is in a block may be a container's choice (a host name,
//! the value of a setting), and is never taken for anything else.

use std::collections::BTreeSet;
use std::io;

use super::{BLOCKS_AT as LINKS_AT, SHARE_BLOCKS, SHARES, Shared};

/// Bytes of a block.
pub const BLOCK: usize = 1024;
/// All blocks.
pub const BLOCKS: usize = SHARES * SHARE_BLOCKS;
/// Bytes of all links and blocks.
pub const SIZE: usize = LINKS + BLOCKS * BLOCK;
/// No block.
pub const NONE: u32 = u32::MAX;

const LINK: usize = 4;
const LINKS: usize = BLOCKS * LINK;
/// Blocks that the memory grows by: whole pages.
const STEP: usize = 16;
/// Unused blocks at the end from which on they are given back.
const SURPLUS: usize = 256;

/// Which blocks are free.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Those below the top.
    free: BTreeSet<u32>,
    /// The first block of which, and of all behind it, none is used.
    pub(super) top: usize,
    /// Blocks that there is memory for.
    reserved: usize,
}

impl Blocks {
    /// All are free but these.
    pub fn adopt(memory: &mut Shared, taken: &BTreeSet<u32>) -> io::Result<Self> {
        let top = taken.last().map_or(0, |last| *last as usize + 1);
        let free = (0..top as u32).filter(|block| !taken.contains(block)).collect();
        // That of those below was got when they were first used.
        let reserved = top.next_multiple_of(STEP);
        if reserved < BLOCKS {
            memory.give_back(block_at(reserved)..block_at(BLOCKS))?;
        }
        Ok(Self { free, top, reserved })
    }

    /// So many blocks, if there are.
    pub fn take(&mut self, memory: &mut Shared, count: usize) -> Option<Box<[u32]>> {
        let end = self.top + count.saturating_sub(self.free.len());
        if end > BLOCKS {
            return None;
        }
        if end > self.reserved {
            let (begin, end) = (self.reserved, end.next_multiple_of(STEP).min(BLOCKS));
            memory.reserve(link_at(begin)..link_at(end)).ok()?;
            memory.reserve(block_at(begin)..block_at(end)).ok()?;
            self.reserved = end;
        }
        let mut blocks: Vec<u32> =
            std::iter::from_fn(|| self.free.pop_first()).take(count).collect();
        blocks.extend(self.top as u32..end as u32);
        self.top = end;
        Some(blocks.into())
    }

    /// Takes blocks back.
    pub fn free(&mut self, memory: &mut Shared, blocks: &[u32]) {
        self.free.extend(blocks);
        while self.top > 0 && self.free.remove(&(self.top as u32 - 1)) {
            self.top -= 1;
        }
        let begin = self.top.next_multiple_of(STEP);
        if self.reserved >= begin + SURPLUS
            && memory.give_back(block_at(begin)..block_at(self.reserved)).is_ok()
        {
            self.reserved = begin;
        }
    }
}

/// How many blocks a text of this length takes.
pub fn count(length: usize) -> usize {
    length.div_ceil(BLOCK)
}

/// Writes a text into its blocks, and chains them.
pub fn write(memory: &mut Shared, blocks: &[u32], text: &[u8]) {
    for (block, part) in blocks.iter().zip(text.chunks(BLOCK)) {
        memory.write(block_at(*block as usize), part);
    }
    for link in blocks.windows(2) {
        memory.write(link_at(link[0] as usize), &link[1].to_ne_bytes());
    }
}

/// A part of the text in these blocks.
pub fn read(memory: &Shared, blocks: &[u32], start: usize, end: usize) -> Vec<u8> {
    let mut part = vec![0; end - start];
    let mut done = 0;
    while done < part.len() {
        let (number, offset) = ((start + done) / BLOCK, (start + done) % BLOCK);
        let length = (BLOCK - offset).min(part.len() - done);
        memory.read(block_at(blocks[number] as usize) + offset, &mut part[done..done + length]);
        done += length;
    }
    part
}

/// The block behind this one in its chain.
pub fn next(memory: &Shared, block: u32) -> Option<u32> {
    let mut link = [0; LINK];
    if block as usize >= BLOCKS {
        return None;
    }
    memory.read(link_at(block as usize), &mut link);
    Some(u32::from_ne_bytes(link))
}

pub(super) fn link_at(block: usize) -> usize {
    LINKS_AT + block * LINK
}

pub(super) fn block_at(block: usize) -> usize {
    LINKS_AT + LINKS + block * BLOCK
}
