//! Removing volumes: put aside at once, deleted in the background.
//!
//! A store can hold millions of files, so a caller only renames it into the trash. What is in it was
//! made by a container and is hostile: it can be nested deeper than the stack or the descriptor
//! table. So nothing recurses: a subdirectory that is not empty is first moved up into the trash
//! itself and has its turn later.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

/// The trash of a data root.
#[derive(Debug)]
pub struct Trash {
    dir: PathBuf,
    wake: Sender<()>,
    number: AtomicU64,
}

impl Trash {
    /// Opens the trash and starts to empty it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let fd = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
        let (wake, woken) = channel();
        std::thread::Builder::new()
            .name("trash".into())
            .spawn(move || empty_for_ever(&fd, &woken))?;
        let trash = Self { dir: dir.to_owned(), wake, number: AtomicU64::new(0) };
        let _ = trash.wake.send(());
        Ok(trash)
    }

    /// Empties it once more, in the background.
    pub fn wake(&self) {
        // The thread only ends with the process.
        let _ = self.wake.send(());
    }

    /// Takes what is at `path`, which must lie on the same file system; nothing there is no error.
    pub fn take(&self, path: &Path) -> io::Result<()> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        // Unique over restarts: names of an earlier process may still be there.
        let name =
            format!("{}-{}-{number}", std::process::id(), crate::registry::process::now_ns());
        match fs::rename(path, self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => {
                self.wake();
                Ok(())
            }
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn empty_for_ever(trash: &OwnedFd, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        if let Err(e) = empty(trash.as_fd()) {
            tracing::warn!("deleting old volumes: {e}");
        }
    }
}

/// Deletes everything in the trash.
fn empty(trash: BorrowedFd<'_>) -> io::Result<()> {
    let mut hoisted = 0u64;
    loop {
        let names = names(trash)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove(trash, &name, &mut hoisted).map_err(|e| {
                let name = OsStr::from_bytes(name.as_bytes()).display().to_string();
                io::Error::new(e.kind(), format!("{name}: {e}"))
            })?;
        }
    }
}

/// Removes one entry of the trash, after moving its non-empty subdirectories up into the trash.
fn remove(trash: BorrowedFd<'_>, name: &CString, hoisted: &mut u64) -> io::Result<()> {
    let dir = match openat(trash, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(unlinkat(trash, name, AtFlags::empty())?),
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut entries = Dir::read_from(&dir)?;
    // What is removed while the directory is read can make the reading skip others: read again until
    // nothing is found.
    loop {
        let mut found = false;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let child = entry.file_name();
            if matches!(child.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            let is_dir = entry.file_type() == FileType::Directory;
            let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(&dir, child, flags) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => {
                    *hoisted += 1;
                    let up = format!("up-{}-{hoisted}", crate::registry::process::now_ns());
                    renameat(&dir, child, trash, up)?;
                }
                Err(e) => return Err(e.into()),
            }
        }
        if !found {
            break;
        }
        entries.rewind();
    }
    Ok(unlinkat(trash, name, AtFlags::REMOVEDIR)?)
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_stack_is_deleted() {
        let base = tempfile::tempdir().unwrap();
        let volume = base.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let mut here = rustix::fs::open(&volume, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&here, "d", Mode::from_raw_mode(0o700)).unwrap();
            openat(&here, "f", OFlags::CREATE | OFlags::RDWR, Mode::empty()).unwrap();
            here = openat(&here, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        let trash = Trash::open(&base.path().join("trash")).unwrap();
        trash.take(&volume).unwrap();
        trash.take(&volume).unwrap();
        assert!(!volume.exists());
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs::read_dir(&trash.dir).unwrap().next().is_some() {
            assert!(Instant::now() < deadline, "the trash is not empty yet");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
