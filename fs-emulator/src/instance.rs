//! One daemon for a run directory: a locked file with the pid of the one that runs.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// How long a start waits for an earlier daemon that was killed to be gone.
const DYING: Duration = Duration::from_secs(10);

/// Whether a process was killed, but a thread of it is not through with that: it still has the lock.
fn is_dying(pid: &str) -> bool {
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// The lock; whoever has it is the daemon of its run directory.
#[derive(Debug)]
pub struct Instance {
    _locked: File,
}

impl Instance {
    /// Locks the file and writes this process's pid into it.
    ///
    /// # Errors
    /// Another daemon runs: says which.
    pub fn lock(path: &Path) -> anyhow::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
            .with_context(|| format!("opening {}", path.display()))?;
        let mut file = File::from(file);
        let deadline = Instant::now() + DYING;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
            if is_dying(pid.trim()) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            bail!(
                "sysbox-fs is already running with pid {} ({} is locked); stop it first, or use \
                 another --run-dir",
                pid.trim(),
                path.display()
            );
        }
        let _ = file.rewind();
        // The lock counts: a full file system is no reason to leave containers without their files.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(e) = written {
            tracing::warn!("writing the process number to {}: {e}", path.display());
        }
        Ok(Self { _locked: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let first = Instance::lock(&path).unwrap();
        let error = Instance::lock(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        Instance::lock(&path).unwrap();
    }
}
