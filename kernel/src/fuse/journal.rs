//! Requests that are being answered, in memory that outlives the server.
//!
//! Before Linux 6.9 the kernel hands out no request twice: one that was read by a server that died
//! has a caller who waits for ever, and cannot even be killed. But whoever has the device may answer
//! it. So requests are read straight into a shared memory that somebody else holds open as well: the
//! kernel's own copy of the request *is* the entry in the journal, and there is no instant at which
//! it is taken and not written down. The next server answers what it finds there; for a request
//! that was answered just before, the kernel says so (`ENOENT`), and nothing happened.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::memory::Shared;

/// Most requests that are answered at the same time; more wait in the kernel. Untouched entries take
/// no memory.
const ENTRIES: usize = 1024;
/// Longest request: the least that the kernel lets a server read (`FUSE_MIN_READ_BUFFER`). It
/// suffices for a connection that agreed on writes of at most 4096 bytes.
const ENTRY_SIZE: usize = 8192;
const SIZE: usize = ENTRIES * ENTRY_SIZE;
const PAGE: usize = 4096;

/// `struct fuse_in_header`: len (u32), opcode (u32), unique (u64), ...
const HEADER: usize = 40;
/// Opcodes of requests that get no answer: `FUSE_FORGET`, `FUSE_INTERRUPT`, `FUSE_BATCH_FORGET`.
const UNANSWERED: [u32; 3] = [2, 36, 42];

/// The journal of one connection.
#[derive(Debug)]
pub struct Journal {
    memory: Shared,
    state: Mutex<State>,
    /// Signalled when an entry becomes free.
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Entries that are free, the next one last.
    free: Vec<usize>,
    /// Entries by the number that the kernel gave to the request.
    taken: HashMap<u64, usize>,
}

impl Journal {
    /// A new, empty journal.
    pub fn new() -> io::Result<Self> {
        Ok(Self::of(Shared::new("sysbox-fuse-journal", SIZE)?))
    }

    /// The journal of a dead server, and the requests that it may not have answered.
    ///
    /// # Errors
    /// `InvalidData` if the descriptor is no journal.
    pub fn open(memory: OwnedFd) -> io::Result<(Self, Vec<Vec<u8>>)> {
        let journal = Self::of(Shared::open(memory, SIZE)?);
        let mut left = Vec::new();
        {
            let mut state = journal.lock();
            for number in std::mem::take(&mut state.free) {
                match journal.request(number) {
                    Some(request) => {
                        state.taken.insert(request.unique, number);
                        left.push(request.bytes);
                    }
                    None => state.free.push(number),
                }
            }
        }
        Ok((journal, left))
    }

    fn of(memory: Shared) -> Self {
        let state = State { free: (0..ENTRIES).rev().collect(), taken: HashMap::new() };
        Self { memory, state: Mutex::new(state), freed: Condvar::new() }
    }

    /// The shared memory, for whoever is to hold it open.
    pub fn memory(&self) -> &OwnedFd {
        self.memory.file()
    }

    /// Waits for the next request of `device` and takes it; it stays in the journal until it is
    /// [answered](Self::answered).
    ///
    /// # Errors
    /// As read(2) of the device: `ENODEV` when the file system is gone.
    pub fn receive(&self, device: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let number = self.take();
        let result = self.read(device, number);
        let mut state = self.lock();
        if let Ok(request) = &result
            && !UNANSWERED.contains(&request.opcode)
        {
            state.taken.insert(request.unique, number);
        } else {
            self.clear(&mut state, number);
        }
        result.map(|request| request.bytes)
    }

    /// The request with this number has its answer.
    pub fn answered(&self, unique: u64) {
        let mut state = self.lock();
        if let Some(number) = state.taken.remove(&unique) {
            self.clear(&mut state, number);
        }
    }

    /// A free entry; waits until there is one.
    fn take(&self) -> usize {
        let state = self.freed.wait_while(self.lock(), |state| state.free.is_empty());
        state.unwrap_or_else(PoisonError::into_inner).free.pop().expect("just checked")
    }

    fn read(&self, device: BorrowedFd<'_>, number: usize) -> io::Result<Request> {
        let entry = self.entry(number).as_ptr();
        loop {
            // SAFETY: the entry is ours alone. Both pages are touched so that the kernel need not
            // wait for one in the middle of a request: if the process were killed there, the entry
            // would have the head of one request and the tail of an older one.
            unsafe {
                entry.write_volatile(0);
                entry.add(PAGE).write_volatile(0);
            }
            // SAFETY: the kernel writes at most ENTRY_SIZE bytes into the entry, which is ours alone.
            let count = unsafe { libc::read(device.as_raw_fd(), entry.cast(), ENTRY_SIZE) };
            if count >= 0 {
                return self.request(number).ok_or(io::ErrorKind::InvalidData.into());
            }
            match io::Error::last_os_error() {
                // Interrupted, or the request was taken back meanwhile.
                e if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::ENOENT | libc::EAGAIN)
                ) => {}
                e => return Err(e),
            }
        }
    }

    /// The request in an entry that is ours; `None` if it is free.
    fn request(&self, number: usize) -> Option<Request> {
        let entry = self.entry(number).as_ptr();
        let mut header = [0_u8; HEADER];
        // SAFETY: the entry is ours alone and longer than a header; the buffer is not part of it.
        unsafe { entry.copy_to_nonoverlapping(header.as_mut_ptr(), HEADER) };
        let word =
            |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap_or_default());
        let unique = unique(&header)?;
        let length = word(0) as usize;
        if unique == 0 || !(HEADER..=ENTRY_SIZE).contains(&length) {
            return None;
        }
        let mut bytes = vec![0; length];
        // SAFETY: as above, and `length` is no more than the entry.
        unsafe { entry.copy_to_nonoverlapping(bytes.as_mut_ptr(), length) };
        Some(Request { opcode: word(4), unique, bytes })
    }

    /// Makes an entry a free one.
    fn clear(&self, state: &mut State, number: usize) {
        // SAFETY: the entry is ours alone until its number is back in `free`, and longer than a header.
        unsafe { self.entry(number).as_ptr().write_bytes(0, HEADER) };
        state.free.push(number);
        self.freed.notify_one();
    }

    /// Where an entry is. It is touched only by who has its number out of `free`, with the state locked
    /// or (in `receive`) before it is in `taken`.
    fn entry(&self, number: usize) -> NonNull<u8> {
        self.memory.at(number * ENTRY_SIZE, ENTRY_SIZE)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Request {
    opcode: u32,
    unique: u64,
    bytes: Vec<u8>,
}

/// The kernel's number of the request that a message is, or answers: it is at the same place in
/// `struct fuse_in_header` and `struct fuse_out_header`. 0 in a server's message means that it answers
/// nothing. `None` if the message is too short.
pub fn unique(message: &[u8]) -> Option<u64> {
    message.get(8..16)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn request(opcode: u32, number: u64, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&opcode.to_ne_bytes());
        bytes[8..16].copy_from_slice(&number.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn what_was_not_answered_is_found_by_the_next_server() {
        let (kernel, device) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let journal = Journal::new().unwrap();
        let (open, read, forget) =
            (request(14, 2, b"open"), request(15, 4, b"read"), request(2, 6, b"forget"));
        for sent in [&open, &read, &forget] {
            rustix::io::write(&kernel, sent).unwrap();
            assert_eq!(&journal.receive(device.as_fd()).unwrap(), sent);
        }
        journal.answered(2);
        journal.answered(99);
        let again = || Journal::open(journal.memory().try_clone().unwrap()).unwrap();
        let (next, left) = again();
        assert_eq!(left, [read]);
        assert_eq!(next.lock().free.len(), ENTRIES - 1);
        next.answered(4);
        assert!(again().1.is_empty());
    }

    #[test]
    fn a_full_journal_waits() {
        let (kernel, device) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let journal = Journal::new().unwrap();
        journal.lock().free.truncate(1);
        for number in [2, 4] {
            rustix::io::write(&kernel, &request(15, number, b"")).unwrap();
        }
        journal.receive(device.as_fd()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| journal.receive(device.as_fd()).unwrap());
            journal.answered(2);
            assert_eq!(unique(&second.join().unwrap()), Some(4));
        });
    }

    #[test]
    fn another_file_is_no_journal() {
        let other = memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert!(Journal::open(other).is_err());
    }
}
