//! The arena, what damage does to it, and deaths between any two of its steps.

use std::ops::Range;

use sysbox_kernel::memory::Shared as Real;

use super::blocks::BLOCK;
use super::*;

/// A memory whose process can be made to die: what it writes after that is not there.
#[derive(Debug)]
pub struct Mortal {
    real: Real,
    /// Writes until then.
    left: Option<usize>,
}

impl Mortal {
    pub fn new(name: &str, size: usize) -> io::Result<Self> {
        Ok(Self { real: Real::new(name, size)?, left: None })
    }

    pub fn open(file: OwnedFd, size: usize) -> io::Result<Self> {
        Ok(Self { real: Real::open(file, size)?, left: None })
    }

    pub fn file(&self) -> &OwnedFd {
        self.real.file()
    }

    pub fn reserve(&self, part: Range<usize>) -> io::Result<()> {
        self.real.reserve(part)
    }

    pub fn give_back(&mut self, part: Range<usize>) -> io::Result<()> {
        if self.lives() { self.real.give_back(part) } else { Ok(()) }
    }

    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.real.read(offset, into);
    }

    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        // Not all at once.
        for (i, byte) in bytes.iter().enumerate() {
            if !self.lives() {
                return;
            }
            self.real.write(offset + i, &[*byte]);
        }
    }

    pub fn word(&self, offset: usize) -> u64 {
        self.real.word(offset)
    }

    pub fn set_word(&mut self, offset: usize, word: u64) {
        if self.lives() {
            self.real.set_word(offset, word);
        }
    }

    fn lives(&mut self) -> bool {
        let Some(left) = &mut self.left else { return true };
        let lives = *left > 0;
        *left = left.saturating_sub(1);
        lives
    }
}

const FIRST: u64 = 1 << 40;

fn about(handle: u64, key: u32) -> About {
    About { handle, key, request: handle * 2 }
}

fn text(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251 + seed) as u8).collect()
}

/// What the next daemon finds, by handle.
fn next(arena: &Arena) -> (Arena, Vec<(About, Kept)>) {
    let (arena, mut found) = Arena::open(arena.memory().try_clone().unwrap(), FIRST).unwrap();
    found.sort_by_key(|(about, _)| about.handle);
    (arena, found)
}

#[test]
fn the_next_daemon_finds_what_was_kept() {
    let mut arena = Arena::new().unwrap();
    let sizes = [1, 20, BLOCK - 1, BLOCK, BLOCK + 1, 5000, 100_000];
    let mut kept: Vec<_> = (0..).zip(sizes).collect();
    let mut keep = |(n, size)| arena.keep(about(n, n as u32 % 3), &text(size, n as usize));
    let mut entries: Vec<_> = kept.iter().map(|one| keep(*one).unwrap()).collect();
    arena.keep_end(about(77, 7), 1234).unwrap();
    // One goes, and its room is used again.
    arena.release(entries.remove(5));
    kept.remove(5);
    entries.push(arena.keep(about(8, 8), &text(9000, 8)).unwrap());
    kept.push((8, 9000));
    for _ in 0..2 {
        let (again, found) = next(&arena);
        assert_eq!(found.len(), kept.len() + 1);
        for ((n, size), (whose, entry)) in kept.iter().zip(&found) {
            assert_eq!(whose.handle, *n);
            assert_eq!(whose.request, *n * 2);
            assert_eq!(entry.end(), *size);
            assert_eq!(again.read(entry, 0, *size), text(*size, *n as usize));
            assert_eq!(again.read(entry, size / 2, *size), text(*size, *n as usize)[size / 2..]);
        }
        let (whose, entry) = found.last().unwrap();
        assert_eq!((whose.key, entry.end(), entry.has_text()), (7, 1234, false));
        // It counts them as the dead one did.
        assert_eq!(again.shares, arena.shares);
        assert_eq!(again.blocks, arena.blocks);
        arena = again;
    }
    let (mut last, found) = next(&arena);
    found.into_iter().for_each(|(_, entry)| last.release(entry));
    assert!(last.shares.is_empty());
    assert_eq!(last.blocks.top, 0);
    assert!(next(&last).1.is_empty());
}

#[test]
fn a_container_has_its_share_and_no_more() {
    let mut arena = Arena::new().unwrap();
    let large = text(SHARE_BLOCKS * BLOCK / 4, 0);
    let kept: Vec<_> = (0..9).filter_map(|n| arena.keep(about(n, 1), &large)).collect();
    assert_eq!(kept.len(), 4);
    assert!(arena.keep(about(10, 1), b"x").is_none());
    assert!(arena.keep(about(11, 2), &large).is_some());
    assert!(arena.keep(about(12, 3), &text(SHARE_BLOCKS * BLOCK + 1, 0)).is_none());
    assert!(!arena.shares.contains_key(&3));
    let ends = (100..).map_while(|n| arena.keep_end(about(n, 4), 1)).count();
    assert_eq!(ends, SHARE_ENTRIES);
    assert!(arena.keep_end(about(1, 5), 1).is_some());
    let used = |arena: &Arena| rustix::fs::fstat(arena.memory()).unwrap().st_blocks * 512;
    let full = used(&arena);
    kept.into_iter().for_each(|kept| arena.release(kept));
    assert!(arena.keep(about(13, 1), &large).is_some());
    let (mut arena, found) = next(&arena);
    found.into_iter().for_each(|(_, kept)| arena.release(kept));
    assert!(used(&arena) < full - (1 << 20), "the memory is given back");
    assert_eq!(arena.blocks.top, 0);
    arena.keep(about(1, 1), &large).unwrap();
}

/// Whatever is there, nothing is found that was not written, and what is well stays.
#[test]
fn damage_is_left_out() {
    let write = |arena: &mut Arena| {
        for n in 0..20 {
            arena.keep(about(n, 1), &text(3000, n as usize)).unwrap();
        }
    };
    let examine = |arena: &Arena, least: usize| {
        let (mut again, found) = next(arena);
        assert!(found.len() >= least, "{}", found.len());
        for (whose, kept) in &found {
            assert_eq!(again.read(kept, 0, kept.end()), text(3000, whose.handle as usize));
        }
        // It works with what is left.
        let more = again.keep(about(1000, 2), &text(50_000, 3)).unwrap();
        assert_eq!(again.read(&more, 0, 50_000), text(50_000, 3));
        let count = found.len();
        let (_, all) = next(&again);
        assert_eq!(all.len(), count + 1);
    };
    let mut seed = 1_u64;
    let mut random = move |below: usize| {
        seed = mix(seed, 12345);
        (seed >> 20) as usize % below
    };
    let parts =
        [(ENTRIES_AT, 20 * ENTRY), (blocks::link_at(0), 60 * 4), (blocks::block_at(0), 60 * BLOCK)];
    for (start, length) in parts {
        for _ in 0..20 {
            let mut arena = Arena::new().unwrap();
            write(&mut arena);
            let at = start + random(length);
            arena.memory.write(at, &[random(256) as u8]);
            examine(&arena, 19);
        }
        let mut arena = Arena::new().unwrap();
        write(&mut arena);
        arena.memory.write(start, &vec![0xff; length]);
        examine(&arena, 0);
    }
    for mark in [0, 3, 100] {
        let mut arena = Arena::new().unwrap();
        write(&mut arena);
        arena.memory.set_word(MARK_AT, mark);
        examine(&arena, (mark as usize).min(20));
    }
    // Two entries with the same blocks, one in a loop, one of a later daemon.
    let mut arena = Arena::new().unwrap();
    write(&mut arena);
    let mut entry = [0; ENTRY];
    arena.memory.read(entry_at(3), &mut entry);
    arena.memory.write(entry_at(4), &entry);
    arena.memory.write(blocks::link_at(15), &15_u32.to_ne_bytes());
    arena.keep(about(FIRST, 1), &text(3000, 0)).unwrap();
    examine(&arena, 18);
    assert!(Arena::open(Shared::new("x", 4096).unwrap().file().try_clone().unwrap(), 1).is_err());
    let mut other = Shared::new("x", SIZE).unwrap();
    assert!(Arena::open(other.file().try_clone().unwrap(), 1).is_err());
    other.set_word(MAGIC_AT, MAGIC);
    assert!(Arena::open(other.file().try_clone().unwrap(), 1).is_ok());
    other.set_word(MARK_AT, u64::MAX);
    assert!(Arena::open(other.file().try_clone().unwrap(), 1).is_err());
}

/// Killed between any two steps, a daemon leaves each text whole or not at all.
#[test]
fn each_step_may_be_the_last() {
    let (old, new) = (text(BLOCK + 30, 1), text(BLOCK + 20, 2));
    let mut seen = BTreeSet::new();
    for steps in 0..2 * BLOCK {
        let mut arena = Arena::new().unwrap();
        arena.keep(about(1, 1), &old).unwrap();
        let goes = arena.keep(about(2, 1), &old).unwrap();
        arena.memory.left = Some(steps);
        // The new text gets the entry and the blocks of the old one.
        arena.release(goes);
        arena.keep(about(3, 1), &new).unwrap();
        let (again, found) = next(&arena);
        for (whose, kept) in &found {
            let expected = if whose.handle == 3 { &new } else { &old };
            assert_eq!(&again.read(kept, 0, kept.end()), expected, "after {steps} steps");
        }
        seen.insert(found.iter().map(|(about, _)| about.handle).collect::<Vec<_>>());
    }
    assert_eq!(Vec::from_iter(seen), [vec![1], vec![1, 2], vec![1, 3]]);
}
