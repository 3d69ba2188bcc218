//! Removing a container's cgroup with all that was made inside.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cgroup::{Cgroup, Driver};
use crate::error::{Context, Result};
use crate::{file, systemd, tree};

/// How long a directory may stay busy: dying processes keep theirs until they are reaped.
const DEADLINE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the container's directory in every hierarchy, with everything below it, children
    /// first. The directories above stay. What is not there counts as removed; the processes must
    /// have been ended before ([`Cgroup::kill_all`]), but may still be dying.
    ///
    /// With the systemd driver the scope is stopped before, if systemd has not yet found that it is
    /// empty.
    ///
    /// # Errors
    /// [`crate::Error::Io`], `EBUSY` above all, when a directory is still in use after five seconds.
    /// The other hierarchies are cleaned all the same. [`crate::Error::Systemd`] when the scope
    /// cannot be stopped; the directory is removed all the same.
    pub fn remove(&self) -> Result<()> {
        let mut result = match self.driver {
            Driver::Cgroupfs => Ok(()),
            Driver::Systemd => systemd::stop(self),
        };
        let deadline = Instant::now() + DEADLINE;
        for hierarchy in &self.hierarchies {
            let dir = &hierarchy.dir;
            // A state file can be wrong; the root of a hierarchy is never a container's.
            if dir == &hierarchy.root || !dir.starts_with(&hierarchy.root) {
                continue;
            }
            let removed = remove_tree(dir, deadline).context("remove cgroup", dir);
            result = result.and(removed);
        }
        result
    }
}

fn remove_tree(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(dir) {
            Err(error) if file::is_gone(&error) => return Ok(()),
            Err(error) if is_busy(&error) => {
                // Busy with children, or with processes of its own.
                match tree::remove_below(dir) {
                    Err(error) if !is_busy(&error) && !file::is_gone(&error) => return Err(error),
                    Ok(()) if fs::remove_dir(dir).is_ok() => return Ok(()),
                    _ => {}
                }
                if Instant::now() >= deadline {
                    return Err(error);
                }
            }
            result => return result,
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::BUSY | Errno::NOTEMPTY | Errno::INTR))
}
