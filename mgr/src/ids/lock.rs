//! The lock of shadow-utils on /etc/subuid and its like.
//!
//! useradd and usermod lock a file F by linking a file that holds their pid to F.lock (link(2) fails
//! if it exists, on every file system). A lock whose process is dead is stale and is taken over.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a useradd that is at work is waited for; shadow-utils itself waits 15 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// Held lock; released when dropped.
#[derive(Debug)]
pub struct SubidLock(PathBuf);

impl SubidLock {
    /// Locks `file`, waiting for another holder to finish.
    pub fn take(file: &Path) -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let lock = with_suffix(file, ".lock");
        loop {
            match try_take(file, &lock) {
                Ok(()) => return Ok(Self(lock)),
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                Err(_) => {}
            }
            if is_stale(&lock) {
                ignore_missing(fs::remove_file(&lock))?;
            } else if Instant::now() > deadline {
                let why = format!("{} is held by another process", lock.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            } else {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for SubidLock {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            tracing::warn!(lock = %self.0.display(), "cannot remove the lock: {e}");
        }
    }
}

fn try_take(file: &Path, lock: &Path) -> io::Result<()> {
    let mine = with_suffix(file, &format!(".{}", std::process::id()));
    ignore_missing(fs::remove_file(&mine))?;
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mine)?;
    // With the terminating NUL, as shadow-utils writes and expects it.
    let linked = out
        .write_all(format!("{}\0", std::process::id()).as_bytes())
        .and_then(|()| fs::hard_link(&mine, lock));
    fs::remove_file(&mine)?;
    linked
}

/// Whether the lock names a process that is dead. One that cannot be read is someone else's.
fn is_stale(lock: &Path) -> bool {
    let Ok(text) = fs::read_to_string(lock) else {
        return false;
    };
    let Ok(pid) = text.trim_end_matches(['\0', '\n']).parse::<u32>() else {
        return false;
    };
    let dead = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
    pid == std::process::id() || fs::metadata(format!("/proc/{pid}")).err().is_some_and(dead)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// `path` with `suffix` appended to its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces `file` by `text` atomically, keeping mode and owner; a missing file gets 0644.
pub(super) fn replace(file: &Path, text: &str) -> io::Result<()> {
    // Where the file is a symlink (images with a writable /etc overlay) its target is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let (mode, owner) = match fs::metadata(&file) {
        Ok(old) => (old.mode() & 0o7777, Some((old.uid(), old.gid()))),
        Err(_) => (0o644, None),
    };
    let new = with_suffix(&file, "+");
    ignore_missing(fs::remove_file(&new))?;
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(text.as_bytes())?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&out, Some(uid), Some(gid))?;
    }
    fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    out.sync_all()?;
    fs::rename(&new, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_and_a_dead_holders_lock_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("subuid");
        let lock = dir.path().join("subuid.lock");
        fs::write(&lock, "999999999\0").unwrap();
        let held = SubidLock::take(&file).unwrap();
        assert!(try_take(&file, &lock).is_err());
        assert_eq!(fs::read_to_string(&lock).unwrap(), format!("{}\0", std::process::id()));
        drop(held);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn replacing_keeps_the_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("subuid");
        replace(&file, "a\n").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
        fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        replace(&file, "b\n").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&file).unwrap(), "b\n");
    }
}
