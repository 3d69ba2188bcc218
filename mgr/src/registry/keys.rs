//! Numbers that are never used twice.
//!
//! A key names one registration of a container for `sysbox-fs`, which makes inode numbers of it. The
//! file holds a number that no key has reached yet; keys are reserved in blocks, so that most
//! registrations need no write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::store::{set_aside, write_replace};

/// Keys reserved by one write.
const BLOCK: u32 = 1024;
/// How far to jump when the file is lost: further than any number of keys that can have been given
/// since the newest record.
const LEAP: u32 = 1 << 20;

/// The counter.
#[derive(Debug)]
pub struct Keys {
    file: PathBuf,
    next: u32,
    /// Keys below this are reserved on disk.
    reserved: u32,
}

impl Keys {
    /// Reads the counter. `highest`: the highest key in any record (0: none).
    pub fn open(file: &Path, highest: u32) -> io::Result<Self> {
        let next = match fs::read_to_string(file) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(next) => next,
                Err(e) => {
                    set_aside(file, &e.to_string());
                    highest.saturating_add(LEAP)
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound && highest == 0 => 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound => highest.saturating_add(LEAP),
            Err(e) => return Err(e),
        };
        let next = next.max(highest.saturating_add(1));
        Ok(Self { file: file.to_owned(), next, reserved: next })
    }

    /// A key that was never given before.
    pub fn next(&mut self) -> io::Result<u32> {
        if self.next >= self.reserved {
            let end = self.next.checked_add(BLOCK).ok_or_else(|| {
                io::Error::other(format!("all keys are used up; remove {}", self.file.display()))
            })?;
            write_replace(
                &self.file.with_extension("tmp"),
                &self.file,
                end.to_string().as_bytes(),
                true,
            )?;
            self.reserved = end;
        }
        self.next += 1;
        Ok(self.next - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_on_after_a_restart_and_are_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("next-key");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut keys = Keys::open(&file, 0).unwrap();
            for _ in 0..1500 {
                assert!(seen.insert(keys.next().unwrap()));
            }
        }
        let last = *seen.last().unwrap();
        fs::write(&file, "garbage").unwrap();
        assert!(Keys::open(&file, last).unwrap().next().unwrap() > last + 1000);
    }
}
