//! Requests that are being worked on, in memory that outlives the process.
//!
//! The kernel sends no request twice: one that was taken by a supervisor that died is known to
//! nobody, and its caller waits for ever. So requests are taken straight into a shared memory that
//! somebody else holds open as well: the kernel's own copy of the request *is* the entry in the journal,
//! and there is no instant at which it is taken and not written down.
//!
//! Beside the request an entry has two numbers of the supervisor: which listener it came from, and a
//! note on how far the work is.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Listener, Notification};
use crate::memory::Shared;

/// Entries: most requests that can be worked on at the same time. Untouched ones take no memory.
const ENTRIES: usize = 4096;

/// One entry. The layout is what a successor, perhaps of another version, finds: it only grows
/// at the end, within [`ENTRY_SIZE`].
#[repr(C)]
struct Entry {
    /// The supervisor's number of the listener; 0: the entry is free.
    listener: u64,
    /// The supervisor's note.
    note: u64,
    /// Where the kernel writes the request; its `id` is 0 until it has.
    request: libc::seccomp_notif,
}

const ENTRY_SIZE: usize = 128;
const SIZE: usize = ENTRIES * ENTRY_SIZE;
const _: () = assert!(size_of::<Entry>() <= ENTRY_SIZE && offset_of!(Entry, request) == 16);

/// The journal of one supervisor.
#[derive(Debug)]
pub struct Journal {
    memory: Shared,
    /// Entries that are free, the next one last.
    free: Mutex<Vec<usize>>,
}

impl Journal {
    /// A new, empty journal.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::of(Shared::new("sysbox-notify-journal", SIZE)?)))
    }

    /// The journal of a dead supervisor, and what it had not done with. Whether such a request still
    /// waits for an answer is for [`Listener::is_valid`] to say.
    ///
    /// # Errors
    /// `InvalidData` if the descriptor is no journal.
    pub fn open(memory: OwnedFd) -> io::Result<(Arc<Self>, Vec<Taking>)> {
        let journal = Arc::new(Self::of(Shared::open(memory, SIZE)?));
        let (left, free) = (0..ENTRIES).rev().partition(|&number| journal.is_left(number));
        *journal.lock() = free;
        let taking = |number| Taking { journal: journal.clone(), number };
        let left = Vec::into_iter(left).map(taking).collect();
        Ok((journal, left))
    }

    fn of(memory: Shared) -> Self {
        Self { memory, free: Mutex::new((0..ENTRIES).rev().collect()) }
    }

    /// The shared memory, for whoever is to hold it open.
    pub fn memory(&self) -> &OwnedFd {
        self.memory.file()
    }

    /// Where an entry is. It is touched by the one `Taking` that has its number out of `free`, or (in
    /// `open`) before there is any.
    fn entry(&self, number: usize) -> NonNull<Entry> {
        // Aligned, as it is a multiple of 128 from the start of a page.
        self.memory.at(number * ENTRY_SIZE, ENTRY_SIZE).cast()
    }

    /// Whether an entry holds a request. One that does not is made a free one.
    fn is_left(&self, number: usize) -> bool {
        let entry = self.entry(number);
        // SAFETY: nobody else uses the mapping's entries yet, and any bytes are a valid `Entry`.
        let Entry { listener, request, .. } = unsafe { entry.read() };
        let is_left = listener != 0 && request.id != 0;
        if listener != 0 && !is_left {
            // SAFETY: as above; all-zero bytes are a valid `Entry`.
            unsafe { entry.write_bytes(0, 1) };
        }
        is_left
    }

    /// Takes the next request of `from`, which the supervisor calls `listener` (not 0), as
    /// [`Listener::receive`] does. The entry stays in the journal until the result is dropped.
    ///
    /// # Errors
    /// As [`Listener::receive`]; `StorageFull` if too many requests are being worked on.
    pub fn receive(self: &Arc<Self>, from: &Listener, listener: u64) -> io::Result<Option<Taking>> {
        let number = self.lock().pop().ok_or(io::ErrorKind::StorageFull)?;
        // From now on dropping it gives the entry back.
        let taking = Taking { journal: self.clone(), number };
        let entry = self.entry(number).as_ptr();
        // SAFETY: the entry is ours alone while its number is not in `free`; a free one is all
        // zeroes, as the kernel demands of `request`. The kernel writes one seccomp_notif there.
        let result = unsafe {
            (&raw mut (*entry).listener).write_volatile(listener);
            let request = &raw mut (*entry).request;
            libc::ioctl(from.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, request)
        };
        Ok(super::received(result)?.then_some(taking))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was taken, and its entry.
#[derive(Debug)]
pub struct Taking {
    journal: Arc<Journal>,
    number: usize,
}

impl Taking {
    /// The request.
    pub fn request(&self) -> Notification {
        // SAFETY: the entry is ours alone and holds what the kernel wrote.
        let request = unsafe { (&raw const (*self.entry()).request).read() };
        Notification::from_kernel(&request)
    }

    /// The supervisor's number of the listener that it came from.
    pub fn listener(&self) -> u64 {
        // SAFETY: the entry is ours alone.
        unsafe { (&raw const (*self.entry()).listener).read() }
    }

    /// What was noted last, perhaps by a dead supervisor; 0: nothing.
    pub fn noted(&self) -> u64 {
        // SAFETY: the entry is ours alone.
        unsafe { (&raw const (*self.entry()).note).read_volatile() }
    }

    /// Writes down how far the work is, for a successor to know.
    pub fn note(&self, note: u64) {
        // SAFETY: the entry is ours alone. Volatile, because nobody in this process reads it: the
        // write must happen, and before what is done next.
        unsafe { (&raw mut (*self.entry()).note).write_volatile(note) };
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    fn entry(&self) -> *mut Entry {
        self.journal.entry(self.number).as_ptr()
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        // SAFETY: the entry is ours alone until its number is back in `free`.
        unsafe { self.entry().write_bytes(0, 1) };
        self.journal.lock().push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::fs::{MemfdFlags, memfd_create};

    #[test]
    fn an_entry_that_was_not_given_back_is_found_by_the_next_supervisor() {
        let journal = Journal::new().unwrap();
        assert_eq!(journal.lock().pop(), Some(0));
        let dead = Taking { journal: journal.clone(), number: 0 };
        // SAFETY: the entry is taken out of `free`.
        unsafe {
            (*dead.entry()).listener = 7;
            (*dead.entry()).request.id = 42;
            (*dead.entry()).request.data.args[1] = 3;
        }
        dead.note(9);
        assert_eq!((dead.request().id, dead.request().args[1]), (42, 3));
        std::mem::forget(dead);

        let again = || Journal::open(journal.memory().try_clone().unwrap()).unwrap();
        let (_, left) = again();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].listener(), left[0].noted(), left[0].request().id), (7, 9, 42));
        drop(left);
        assert!(again().1.is_empty());
    }

    #[test]
    fn another_file_is_no_journal() {
        let other = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert!(Journal::open(other).is_err());
    }
}
