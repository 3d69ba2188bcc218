//! One daemon for a run directory: a locked file with the pid of the one that runs.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

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
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "sysbox-fs is already running with pid {} ({} is locked); stop it first, or use \
                 another --run-dir",
                pid.trim(),
                path.display()
            );
        }
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
