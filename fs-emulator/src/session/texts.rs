//! The texts of open files: made at open, so that all reads of a file see one moment.
//!
//! As with the kernel's own files, going back to the beginning makes a new text: `top` and its
//! like keep `/proc/stat` open for ever and read it from offset 0 again and again. Of a text that was
//! read at once only the length is kept, which is where the file ends. One that was read in part stays
//! until the file is closed, in the [arena](super::arena), where the next daemon finds it: nobody
//! sees the beginning of one text and the end of another. What one container can make the daemon
//! remember is bounded: beyond that, every read makes the text anew.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arena::{About, Arena, Kept};

/// Most that is remembered for one container, bytes.
const MAX_BYTES: usize = 4 << 20;
/// What an open file costs besides its text, bytes, roughly.
const HANDLE: usize = 128;

/// All open files.
#[derive(Debug)]
pub struct Texts {
    state: Mutex<State>,
    /// See [`Texts::may_be_asked_twice`].
    twice: AtomicBool,
}

/// A read of an open file.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// The file's.
    pub handle: u64,
    /// The kernel's number of the request: when it is sent again, it has the same.
    pub request: u64,
    pub offset: u64,
    /// Most bytes that are wanted.
    pub size: usize,
}

#[derive(Debug)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
    /// Bytes by container.
    used: HashMap<u32, usize>,
    /// None if the memory for it can't be had.
    arena: Option<Arena>,
}

#[derive(Debug)]
struct Open {
    key: u32,
    text: Text,
}

#[derive(Debug)]
enum Text {
    /// Made, not read yet.
    Fresh(Box<str>),
    /// Read in part, and first by this request.
    Begun(u64, Place),
    /// Read at once; this is its length, and where that is kept.
    Done(usize, Option<Kept>),
}

#[derive(Debug)]
enum Place {
    Arena(Kept),
    /// There was no room for it in the arena.
    Here(Box<str>),
}

impl Text {
    fn cost(&self) -> usize {
        HANDLE
            + match self {
                Text::Fresh(text) | Text::Begun(_, Place::Here(text)) => text.len(),
                Text::Begun(_, Place::Arena(kept)) => kept.end(),
                Text::Done(..) => 0,
            }
    }
}

impl Texts {
    /// No file is open but those that were when an earlier daemon died, if `kept` is its memory.
    /// Handles count from `first`, which must be above all that an earlier daemon gave for the same file
    /// system.
    ///
    /// Gives also what is to be kept from now on, if that is another memory.
    pub fn new(first: u64, kept: Option<OwnedFd>) -> (Self, Option<OwnedFd>) {
        let (open, used) = (HashMap::new(), HashMap::new());
        let mut state = State { next: first, open, used, arena: None };
        match kept.map(|memory| Arena::open(memory, first)) {
            Some(Ok((arena, found))) => {
                state.arena = Some(arena);
                found.into_iter().for_each(|(about, kept)| state.adopt(about, kept));
            }
            Some(Err(e)) => {
                tracing::warn!(
                    "texts of open files that were kept can't be read, and are lost: {e}"
                );
            }
            None => {}
        }
        let mut keep = None;
        if state.arena.is_none() {
            let made = Arena::new().and_then(|arena| Ok((arena.memory().try_clone()?, arena)));
            match made {
                Ok((memory, arena)) => (keep, state.arena) = (Some(memory), Some(arena)),
                Err(e) => tracing::warn!("texts of open files will end with this daemon: {e}"),
            }
        }
        (Self { state: Mutex::new(state), twice: AtomicBool::new(false) }, keep)
    }

    /// From now on a request may come again though its answer has arrived: the next daemon cannot know
    /// that, before Linux 6.9. So texts that were read at once are kept, too, for the second answer must
    /// be the first one.
    pub fn may_be_asked_twice(&self) {
        self.twice.store(true, Ordering::Relaxed);
    }

    /// Opens a file of container `key` with this text and returns its handle.
    pub fn open(&self, key: u32, text: String) -> u64 {
        let mut state = self.lock();
        let handle = state.next;
        state.next += 1;
        state.put(handle, key, Text::Fresh(text.into()));
        handle
    }

    /// Reads a part. None if the text must be made anew for that: then call [`Texts::renew`].
    pub fn read(&self, read: &Read) -> Option<Vec<u8>> {
        let state = &mut *self.lock();
        let open = state.open.get(&read.handle)?;
        match &open.text {
            // Going back is a new request.
            Text::Begun(first, _) if read.offset == 0 && read.request != *first => None,
            Text::Begun(_, place) => {
                let (start, end) = read.part(place.length());
                Some(match place {
                    Place::Here(text) => text.as_bytes()[start..end].to_vec(),
                    Place::Arena(kept) => state.arena.as_ref()?.read(kept, start, end),
                })
            }
            Text::Done(end, _) => (read.offset >= *end as u64 && read.offset > 0).then(Vec::new),
            Text::Fresh(_) => {
                let Open { key, text } = state.take(read.handle)?;
                let Text::Fresh(text) = text else { return None };
                Some(self.give(state, read, key, text))
            }
        }
    }

    /// Reads from a new text, which takes the place of the old one.
    pub fn renew(&self, read: &Read, key: u32, text: String) -> Vec<u8> {
        self.give(&mut self.lock(), read, key, text.into())
    }

    /// Closes a file; it need not be known.
    pub fn close(&self, handle: u64) {
        self.lock().close(handle);
    }

    /// Forgets the open files of all containers but those.
    pub fn retain(&self, keys: impl Fn(u32) -> bool) {
        let mut state = self.lock();
        let gone = state.open.iter().filter(|(_, open)| !keys(open.key)).map(|(handle, _)| *handle);
        gone.collect::<Vec<_>>().into_iter().for_each(|handle| state.close(handle));
    }

    /// Copies a part of a text that nobody has seen, and keeps what later reads need.
    fn give(&self, state: &mut State, read: &Read, key: u32, text: Box<str>) -> Vec<u8> {
        let (start, end) = read.part(text.len());
        let part = text.as_bytes()[start..end].to_vec();
        let at_once = part.len() == text.len() && !self.twice.load(Ordering::Relaxed);
        // The old one goes first: two of one file would be one too many for the next daemon.
        state.close(read.handle);
        let about = About { handle: read.handle, key, request: read.request };
        let text = if at_once {
            let kept = state.arena.as_mut().and_then(|arena| arena.keep_end(about, end));
            Text::Done(end, kept)
        } else {
            let kept = state.arena.as_mut().and_then(|arena| arena.keep(about, text.as_bytes()));
            Text::Begun(read.request, kept.map_or(Place::Here(text), Place::Arena))
        };
        state.put(read.handle, key, text);
        part
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn length(&self) -> usize {
        match self {
            Place::Arena(kept) => kept.end(),
            Place::Here(text) => text.len(),
        }
    }
}

impl Read {
    /// Beginning and end of the part of a text of this length.
    fn part(&self, length: usize) -> (usize, usize) {
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX).min(length);
        (start, start.saturating_add(self.size).min(length))
    }
}

impl State {
    fn adopt(&mut self, about: About, kept: Kept) {
        let text = if kept.has_text() {
            Text::Begun(about.request, Place::Arena(kept))
        } else {
            Text::Done(kept.end(), Some(kept))
        };
        self.put(about.handle, about.key, text);
    }

    /// Remembers a text, if its container may have one more.
    fn put(&mut self, handle: u64, key: u32, text: Text) {
        let used = self.used.entry(key).or_default();
        if *used + text.cost() <= MAX_BYTES {
            *used += text.cost();
            self.open.insert(handle, Open { key, text });
        } else {
            self.drop(text);
        }
    }

    fn take(&mut self, handle: u64) -> Option<Open> {
        let open = self.open.remove(&handle)?;
        if let Some(used) = self.used.get_mut(&open.key) {
            *used -= open.text.cost();
            if *used == 0 {
                self.used.remove(&open.key);
            }
        }
        Some(open)
    }

    fn close(&mut self, handle: u64) {
        if let Some(open) = self.take(handle) {
            self.drop(open.text);
        }
    }

    fn drop(&mut self, text: Text) {
        if let Text::Begun(_, Place::Arena(kept)) | Text::Done(_, Some(kept)) = text
            && let Some(arena) = &mut self.arena
        {
            arena.release(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(handle: u64, request: u64, offset: u64, size: usize) -> Read {
        Read { handle, request, offset, size }
    }

    /// The texts of a daemon, and what its successor is given.
    fn first() -> (Texts, OwnedFd) {
        let (texts, memory) = Texts::new(5, None);
        (texts, memory.unwrap())
    }

    fn next(memory: &OwnedFd) -> Texts {
        let (texts, other) = Texts::new(1000, Some(memory.try_clone().unwrap()));
        assert!(other.is_none());
        texts
    }

    #[test]
    fn one_text_for_all_reads_of_a_pass() {
        let (texts, _) = first();
        let handle = texts.open(1, "abcdef".into());
        assert_eq!(handle, 5);
        assert_eq!(texts.read(&read(handle, 1, 0, 4)).unwrap(), b"abcd");
        assert_eq!(texts.read(&read(handle, 2, 4, 4)).unwrap(), b"ef");
        // The end stays where it was, though a new text might be longer.
        assert_eq!(texts.read(&read(handle, 3, 6, 4)).unwrap(), b"");
        assert_eq!(texts.read(&read(handle, 4, 3, 1)).unwrap(), b"d");
        let handle = texts.open(1, "abc".into());
        assert_eq!(texts.read(&read(handle, 5, 0, 9)).unwrap(), b"abc");
        assert_eq!(texts.read(&read(handle, 6, 3, 9)).unwrap(), b"");
        assert!(texts.read(&read(handle, 7, 1, 9)).is_none());
    }

    #[test]
    fn going_back_makes_a_new_text() {
        let (texts, _) = first();
        let handle = texts.open(1, "one".into());
        assert_eq!(texts.read(&read(handle, 1, 0, 1)).unwrap(), b"o");
        assert!(texts.read(&read(handle, 2, 0, 9)).is_none());
        assert_eq!(texts.renew(&read(handle, 2, 0, 3), 1, "second".into()), b"sec");
        assert_eq!(texts.read(&read(handle, 3, 3, 9)).unwrap(), b"ond");
        assert!(texts.read(&read(handle, 4, 0, 9)).is_none());
        // A handle that an earlier daemon gave.
        assert!(texts.read(&read(99, 5, 0, 1)).is_none());
        assert_eq!(texts.renew(&read(99, 5, 1, 1), 1, "xy".into()), b"y");
    }

    #[test]
    fn an_empty_text_ends_at_once() {
        let (texts, _) = first();
        let handle = texts.open(1, String::new());
        assert_eq!(texts.read(&read(handle, 1, 0, 9)).unwrap(), b"");
        assert!(texts.read(&read(handle, 2, 0, 9)).is_none());
    }

    #[test]
    fn one_container_fills_only_its_own_share() {
        let (texts, memory) = first();
        let large = "x".repeat(1 << 17);
        let handles: Vec<_> = (0..100).map(|_| texts.open(1, large.clone())).collect();
        let kept = handles.iter().filter(|h| texts.read(&read(**h, 1, 0, 1)).is_some());
        assert!((30..32).contains(&kept.count()));
        let other = texts.open(2, "yz".into());
        assert_eq!(texts.read(&read(other, 1, 0, 1)).unwrap(), b"y");
        // The next daemon finds as much as there is room for; of the rest it makes new texts.
        let later = next(&memory);
        let kept = handles.iter().filter(|h| later.read(&read(**h, 2, 1, 1)).is_some());
        assert_eq!(kept.count(), 8);
        assert_eq!(later.read(&read(other, 2, 1, 1)).unwrap(), b"z");
        handles.into_iter().chain([other]).for_each(|h| texts.close(h));
        assert!(texts.lock().used.is_empty());
        assert!(next(&memory).lock().open.is_empty());
    }

    #[test]
    fn the_next_daemon_goes_on_with_the_same_texts() {
        let (texts, memory) = first();
        let long = "0123456789".repeat(1000);
        let begun = texts.open(1, long.clone());
        texts.read(&read(begun, 1, 0, 5000)).unwrap();
        let done = texts.open(1, "abc".into());
        texts.read(&read(done, 2, 0, 100)).unwrap();
        let fresh = texts.open(1, "fresh".into());
        let closed = texts.open(1, "closed".into());
        texts.read(&read(closed, 3, 0, 1)).unwrap();
        texts.close(closed);
        let renewed = texts.open(2, "first".into());
        texts.read(&read(renewed, 4, 0, 1)).unwrap();
        texts.renew(&read(renewed, 5, 0, 2), 2, "second".into());
        let mut last = texts;
        for _ in 0..3 {
            last = next(&memory);
            assert_eq!(
                last.read(&read(begun, 7, 5000, 3000)).unwrap(),
                &long.as_bytes()[5000..8000]
            );
            // Sent again, whether or not the answer has arrived: the same.
            assert_eq!(last.read(&read(begun, 1, 0, 5000)).unwrap(), &long.as_bytes()[..5000]);
            assert_eq!(last.read(&read(begun, 8, 10_000, 9)).unwrap(), b"");
            assert_eq!(last.read(&read(done, 8, 3, 100)).unwrap(), b"");
            assert!(last.read(&read(fresh, 9, 0, 1)).is_none());
            assert!(last.read(&read(closed, 9, 1, 1)).is_none());
            assert_eq!(last.read(&read(renewed, 9, 2, 9)).unwrap(), b"cond");
        }
        last.retain(|key| key != 2);
        assert!(last.read(&read(renewed, 10, 2, 9)).is_none());
        [begun, done].into_iter().for_each(|handle| last.close(handle));
        let last = next(&memory);
        assert!(last.lock().open.is_empty() && last.lock().used.is_empty());
    }

    #[test]
    fn who_may_be_asked_twice_answers_the_same() {
        let (texts, memory) = first();
        texts.may_be_asked_twice();
        let handle = texts.open(1, "abc".into());
        assert_eq!(texts.read(&read(handle, 1, 0, 100)).unwrap(), b"abc");
        let later = next(&memory);
        assert_eq!(later.read(&read(handle, 1, 0, 100)).unwrap(), b"abc");
        assert!(later.read(&read(handle, 2, 0, 100)).is_none());
    }

    #[test]
    fn what_cannot_be_read_is_set_aside() {
        let other = std::fs::File::open("/dev/null").unwrap();
        let (texts, memory) = Texts::new(5, Some(other.into()));
        let handle = texts.open(1, "abc".into());
        texts.read(&read(handle, 1, 0, 1)).unwrap();
        assert_eq!(next(&memory.unwrap()).read(&read(handle, 2, 1, 2)).unwrap(), b"bc");
    }
}
