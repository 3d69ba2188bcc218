//! Files of cgroups that are read again and again, kept open.
//!
//! To open a file of a cgroup and to close it takes the kernel three times as long as to read it, and
//! some files need a dozen others. So what is read for a reader stays open until the next
//! [`Kept::clear`], which a thread calls every few seconds, and the one file that this thread itself reads of
//! each container stays open for good. An open file of a cgroup is read anew from its beginning, tells
//! what is so at that moment, and keeps no cgroup from being removed; then it answers `ENODEV`, also
//! if there is another of that name. A long text takes several reads, which must not mix with another
//! reader's: whoever begins anew has the kernel make a new text. So one reads a file at a time.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most that are kept of one hierarchy of a container: four levels with what all files need of them.
const OF_ONE: usize = 32;
/// Most that are kept for readers of all containers together: less than half of what a process may have open.
const OF_ALL: usize = 400;

/// Places for descriptors, for all containers together.
#[derive(Debug)]
struct Places {
    most: AtomicUsize,
    taken: AtomicUsize,
}

impl Places {
    const fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), taken: AtomicUsize::new(0) }
    }
}

static FOR_READERS: Places = Places::new(OF_ALL);
static FOR_SAMPLES: Places = Places::new(0);

/// Says how many files this process may have open: half of them may be kept for samples.
pub fn may_have_open(files: usize) {
    FOR_SAMPLES.most.store(files / 2, Ordering::Relaxed);
}

/// What is kept open of a hierarchy of a container.
#[derive(Debug)]
pub struct Kept {
    state: Mutex<State>,
    places: &'static Places,
}

#[derive(Debug, Default)]
struct State {
    directory: Option<(Arc<OwnedFd>, Place)>,
    /// By the path below the directory.
    files: HashMap<String, (Arc<Mutex<OwnedFd>>, Place)>,
}

/// One of the places.
#[derive(Debug)]
struct Place(&'static Places);

impl Place {
    fn take(places: &'static Places) -> Option<Self> {
        // Not exact, and need not be: as many more as there are threads.
        let free = places.taken.load(Ordering::Relaxed) < places.most.load(Ordering::Relaxed);
        free.then(|| {
            places.taken.fetch_add(1, Ordering::Relaxed);
            Self(places)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Kept {
    /// For what readers need, to be cleared often.
    pub fn for_readers() -> Self {
        Self { state: Mutex::default(), places: &FOR_READERS }
    }

    /// For what is read at intervals.
    pub fn for_samples() -> Self {
        Self { state: Mutex::default(), places: &FOR_SAMPLES }
    }

    /// The container's own directory, which `open` opens.
    pub fn directory(&self, open: impl FnOnce() -> Option<OwnedFd>) -> Option<Arc<OwnedFd>> {
        if let Some((directory, _)) = &self.state().directory {
            return Some(directory.clone());
        }
        let directory = Arc::new(open()?);
        self.state().directory = Place::take(self.places).map(|place| (directory.clone(), place));
        Some(directory)
    }

    /// What `read` makes of the file at `path`, which `open` opens. It must read from the beginning.
    pub fn text(
        &self,
        path: &str,
        open: impl FnOnce() -> Option<OwnedFd>,
        read: impl Fn(&OwnedFd) -> io::Result<String>,
    ) -> Option<String> {
        let found = self.state().files.get(path).map(|(file, _)| file.clone());
        if let Some(file) = found {
            let result = read(&file.lock().unwrap_or_else(PoisonError::into_inner));
            match result {
                Ok(text) => return Some(text),
                // That cgroup is gone.
                Err(_) => drop(self.state().files.remove(path)),
            }
        }
        let file = open()?;
        let text = read(&file).ok()?;
        self.keep(path, file);
        Some(text)
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        // Closed without the lock.
        drop(std::mem::take(&mut *self.state()));
    }

    fn keep(&self, path: &str, file: OwnedFd) {
        let mut state = self.state();
        if state.files.len() < OF_ONE
            && let Some(place) = Place::take(self.places)
        {
            state.files.insert(path.to_owned(), (Arc::new(Mutex::new(file)), place));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::view::host::reread;

    #[test]
    fn a_file_is_opened_once_and_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.max");
        let opened = Cell::new(0);
        let kept = Kept::for_readers();
        let text = || {
            let open = || {
                opened.set(opened.get() + 1);
                Some(std::fs::File::open(&path).ok()?.into())
            };
            kept.text("cpu.max", open, reread)
        };
        assert_eq!(text(), None);
        for value in ["max 100000\n", "5000 100000\n"] {
            std::fs::write(&path, value).unwrap();
            assert_eq!(text().as_deref(), Some(value));
        }
        assert_eq!(opened.get(), 2, "the first time there was none");
        kept.clear();
        assert!(text().is_some());
        assert_eq!(opened.get(), 3);
    }

    #[test]
    fn what_cannot_be_read_any_more_is_opened_again() {
        let (kept, tries) = (Kept::for_readers(), Cell::new(0));
        let open = || Some(std::fs::File::open("/dev/null").unwrap().into());
        // The second read, which is of the file that was kept, fails.
        let read = |_: &OwnedFd| {
            tries.set(tries.get() + 1);
            if tries.get() == 2 { Err(io::ErrorKind::NotFound.into()) } else { Ok("new".into()) }
        };
        for _ in 0..2 {
            assert_eq!(kept.text("a", open, read).as_deref(), Some("new"));
        }
        assert_eq!(tries.get(), 3);
    }

    #[test]
    fn one_reads_a_file_at_a_time() {
        let kept = Kept::for_readers();
        let open = || Some(std::fs::File::open("/dev/null").unwrap().into());
        let reading = AtomicUsize::new(0);
        let read = |_: &OwnedFd| {
            assert_eq!(reading.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            std::thread::sleep(std::time::Duration::from_millis(1));
            reading.fetch_sub(1, Ordering::SeqCst);
            Ok(String::new())
        };
        kept.text("memory.stat", open, read);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| drop(kept.text("memory.stat", open, read))));
            }
        });
    }

    #[test]
    fn few_are_kept_of_one_container() {
        let kept = Kept::for_readers();
        for number in 0..2 * OF_ONE {
            let open = || Some(std::fs::File::open("/dev/null").unwrap().into());
            assert!(kept.text(&format!("{number}/cpu.max"), open, reread).is_some());
        }
        assert_eq!(kept.state().files.len(), OF_ONE);
        kept.clear();
        assert!(kept.state().files.is_empty());
    }

    #[test]
    fn few_are_kept_of_all_together() {
        static PLACES: Places = Places::new(1);
        let only = Place::take(&PLACES);
        assert!(only.is_some() && Place::take(&PLACES).is_none());
        drop(only);
        assert!(Place::take(&PLACES).is_some());
    }
}
