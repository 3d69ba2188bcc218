//! The texts of open files: made at open, so that all reads of a file see one moment.
//!
//! As with the kernel's own files, going back to the beginning makes a new text: `top` and its
//! like keep `/proc/stat` open for ever and read it from offset 0 again and again. A text that was
//! read to its end is dropped, only its length is kept; and what one container can make the daemon
//! remember is bounded: beyond that, every read makes the text anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most that is remembered for one container, bytes.
const MAX_BYTES: usize = 4 << 20;
/// What an open file costs besides its text, bytes, roughly.
const HANDLE: usize = 128;

/// All open files.
#[derive(Debug)]
pub struct Texts(Mutex<State>);

#[derive(Debug)]
struct State {
    next: u64,
    open: HashMap<u64, Open>,
    /// Bytes by container.
    used: HashMap<u32, usize>,
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
    /// Read in part.
    Started(Box<str>),
    /// Read to the end, which is at this offset.
    Done(usize),
}

impl Text {
    fn cost(&self) -> usize {
        match self {
            Text::Fresh(text) | Text::Started(text) => HANDLE + text.len(),
            Text::Done(_) => HANDLE,
        }
    }
}

impl Texts {
    /// No file is open. Handles count from `first`, which must be above all that an earlier daemon
    /// gave for the same file system.
    pub fn new(first: u64) -> Self {
        let (open, used) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(State { next: first, open, used }))
    }

    /// Opens a file of container `key` with this text and returns its handle.
    pub fn open(&self, key: u32, text: String) -> u64 {
        let mut state = self.lock();
        let handle = state.next;
        state.next += 1;
        state.put(handle, key, Text::Fresh(text.into()));
        handle
    }

    /// Reads up to `size` bytes at `offset`. None if the text must be made anew for that: then call
    /// [`Texts::renew`].
    pub fn read(&self, handle: u64, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        let Open { key, text } = state.take(handle)?;
        match text {
            Text::Started(_) if offset == 0 => {
                state.put(handle, key, text);
                None
            }
            Text::Fresh(text) | Text::Started(text) => {
                Some(state.give(handle, key, text, offset, size))
            }
            Text::Done(end) => {
                state.put(handle, key, text);
                (offset >= end as u64 && offset > 0).then(Vec::new)
            }
        }
    }

    /// Reads from a new text, which takes the place of the old one.
    pub fn renew(&self, handle: u64, key: u32, text: String, offset: u64, size: usize) -> Vec<u8> {
        self.lock().give(handle, key, text.into(), offset, size)
    }

    /// Closes a file; it need not be known.
    pub fn close(&self, handle: u64) {
        self.lock().take(handle);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Copies a part of the text and keeps what later reads need.
    fn give(&mut self, handle: u64, key: u32, text: Box<str>, offset: u64, size: usize) -> Vec<u8> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size).min(text.len());
        let part = text.as_bytes()[start..end].to_vec();
        let left = if end == text.len() { Text::Done(end) } else { Text::Started(text) };
        self.put(handle, key, left);
        part
    }

    fn put(&mut self, handle: u64, key: u32, text: Text) {
        self.take(handle);
        let used = self.used.entry(key).or_default();
        if *used + text.cost() <= MAX_BYTES {
            *used += text.cost();
            self.open.insert(handle, Open { key, text });
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_all_reads_of_a_pass() {
        let texts = Texts::new(5);
        let handle = texts.open(1, "abcdef".into());
        assert_eq!(handle, 5);
        assert_eq!(texts.read(handle, 0, 4).unwrap(), b"abcd");
        assert_eq!(texts.read(handle, 4, 4).unwrap(), b"ef");
        // The end stays where it was, though a new text might be longer.
        assert_eq!(texts.read(handle, 6, 4).unwrap(), b"");
        assert!(texts.read(handle, 3, 1).is_none());
    }

    #[test]
    fn going_back_makes_a_new_text() {
        let texts = Texts::new(0);
        let handle = texts.open(1, "one".into());
        assert_eq!(texts.read(handle, 0, 1).unwrap(), b"o");
        assert!(texts.read(handle, 0, 9).is_none());
        assert_eq!(texts.renew(handle, 1, "second".into(), 0, 3), b"sec");
        assert_eq!(texts.read(handle, 3, 9).unwrap(), b"ond");
        assert!(texts.read(handle, 0, 9).is_none());
        // A handle that an earlier daemon gave.
        assert!(texts.read(99, 0, 1).is_none());
        assert_eq!(texts.renew(99, 1, "xy".into(), 1, 1), b"y");
    }

    #[test]
    fn an_empty_text_ends_at_once() {
        let texts = Texts::new(0);
        let handle = texts.open(1, String::new());
        assert_eq!(texts.read(handle, 0, 9).unwrap(), b"");
        assert!(texts.read(handle, 0, 9).is_none());
    }

    #[test]
    fn one_container_fills_only_its_own_share() {
        let texts = Texts::new(0);
        let handles: Vec<_> = (0..100).map(|_| texts.open(1, "x".repeat(1 << 17))).collect();
        let kept = handles.iter().filter(|h| texts.read(**h, 0, 1).is_some()).count();
        assert!((30..32).contains(&kept), "{kept}");
        let other = texts.open(2, "y".into());
        assert_eq!(texts.read(other, 0, 1).unwrap(), b"y");
        handles.into_iter().chain([other]).for_each(|h| texts.close(h));
        assert!(texts.lock().used.is_empty());
    }
}
