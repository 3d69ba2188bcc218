//! Memory that outlives the process: a file in memory that somebody else holds open as well.
//!
//! A process may be killed between any two instructions. What it wrote until then is there for its
//! successor, in the order in which it was written: nothing has to reach a disk, and no call is needed.
//! (The compiler must keep to that order, too: see [`Shared::set_word`].)

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// A memory of fixed size. Parts that nobody has touched take none.
///
/// Only one process at a time uses it; the others hold it open for that one's successor.
#[derive(Debug)]
pub struct Shared {
    file: OwnedFd,
    map: NonNull<u8>,
    size: usize,
}

// SAFETY: `map` is a mapping that lives as long as the value. The safe functions write to it through
// `&mut self` only; who uses `at` answers for what is done with the pointer.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A new memory, all zeroes. `name` is for people who look at what a process has open.
    pub fn new(name: &str, size: usize) -> io::Result<Self> {
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size as u64)?;
        // Touching a page beyond the end of a file that was cut short kills the process.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, size)
    }

    /// The memory of a dead process.
    ///
    /// # Errors
    /// `InvalidData` if the descriptor is no memory of this size.
    pub fn open(file: OwnedFd, size: usize) -> io::Result<Self> {
        let found = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        if found != size || !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            let message = format!("a file of {found} bytes instead of a memory of {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Self::map(file, size)
    }

    fn map(file: OwnedFd, size: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it overlays nothing.
        let map =
            unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, &file, 0) }?;
        let map = NonNull::new(map.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, map, size })
    }

    /// The file, for whoever is to hold it open.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Gets the memory for a part now: if there is none, this says so, where touching it would kill
    /// the process.
    pub fn reserve(&self, part: Range<usize>) -> io::Result<()> {
        let (start, length) = (part.start as u64, part.len() as u64);
        Ok(fallocate(&self.file, FallocateFlags::empty(), start, length)?)
    }

    /// Gives the memory of a part back, as far as it is whole pages; it is all zeroes then.
    pub fn give_back(&mut self, part: Range<usize>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, part.start as u64, part.len() as u64)?)
    }

    /// Copies from the memory.
    ///
    /// # Panics
    /// If that is not in it.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len()).as_ptr();
        // SAFETY: in the mapping, as `at` checks, and nobody writes while we are borrowed.
        unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }

    /// Copies into the memory.
    ///
    /// # Panics
    /// If that is not in it.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len()).as_ptr();
        // SAFETY: in the mapping, as `at` checks, and we are borrowed for this alone.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// The word at an offset that is a multiple of 8.
    ///
    /// # Panics
    /// If there is none.
    pub fn word(&self, offset: usize) -> u64 {
        self.atomic(offset).load(Ordering::Relaxed)
    }

    /// Sets the word at an offset that is a multiple of 8: after all that was written before, and
    /// before all that is written later.
    ///
    /// # Panics
    /// If there is none.
    pub fn set_word(&mut self, offset: usize, word: u64) {
        compiler_fence(Ordering::SeqCst);
        self.atomic(offset).store(word, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    fn atomic(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(WORD));
        // SAFETY: in the mapping, as `at` checks; aligned, as the mapping starts with a page; and
        // whatever bytes are there are a valid word.
        unsafe { AtomicU64::from_ptr(self.at(offset, WORD).cast().as_ptr()) }
    }

    /// Where a part is.
    ///
    /// # Panics
    /// If the memory does not have it.
    pub(crate) fn at(&self, offset: usize, length: usize) -> NonNull<u8> {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.size));
        // SAFETY: within the mapping, by the assertion.
        unsafe { self.map.add(offset) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.map.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_finds_what_was_written() {
        let mut memory = Shared::new("test", 1 << 20).unwrap();
        memory.reserve(0..4096).unwrap();
        memory.write(5, b"text");
        memory.set_word(8192, 7);
        let file = || memory.file().try_clone().unwrap();
        let mut next = Shared::open(file(), 1 << 20).unwrap();
        let mut bytes = [1; 6];
        next.read(4, &mut bytes);
        assert_eq!((&bytes, next.word(8192)), (b"\0text\0", 7));
        next.give_back(0..8192).unwrap();
        next.read(4, &mut bytes);
        assert_eq!((bytes, next.word(8192)), ([0; 6], 7));
        assert!(Shared::open(file(), 4096).is_err());
        let other = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&other, 4096).unwrap();
        assert!(Shared::open(other, 4096).is_err(), "it could be cut short");
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn nothing_beyond_its_end_is_touched() {
        Shared::new("test", 4096).unwrap().write(4095, b"xy");
    }
}
