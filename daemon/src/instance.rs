//! One instance of a daemon: a locked file with the pid of the one that runs.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

/// How long a start waits for an earlier instance that was killed to be gone.
const DYING: Duration = Duration::from_secs(10);

/// The lock; whoever has it is the only instance.
#[derive(Debug)]
pub struct Instance {
    _locked: File,
}

impl Instance {
    /// Locks the file and writes this process's pid into it. `program` is who asks, `apart` what keeps two
    /// of them apart; both for the message.
    ///
    /// # Errors
    /// Another instance runs: says which.
    pub fn lock(path: &Path, program: &str, apart: &str) -> anyhow::Result<Self> {
        let shown = path.display();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
            .with_context(|| format!("opening {shown}"))?;
        let mut file = File::from(file);
        let deadline = Instant::now() + DYING;
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if e != Errno::WOULDBLOCK {
                return Err(e).with_context(|| format!("locking {shown}"));
            }
            let mut pid = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
            let pid = pid.trim();
            if !is_dying(pid) || Instant::now() > deadline {
                bail!(
                    "{program} runs already with pid {pid} ({shown} is locked); stop it first, or give \
                     another {apart}"
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = file.rewind();
        // The lock counts, the number is only told to whoever comes second: a full file system is no
        // reason to leave containers alone.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(e) = written {
            tracing::warn!("writing the process number to {shown}: {e}");
        }
        Ok(Self { _locked: file })
    }
}

/// Whether a process was killed, but a thread or child of it is not through with that, and still has the
/// lock. A thread that waits for a file of `sysbox-fs` ends only when it gets its answer.
fn is_dying(pid: &str) -> bool {
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let lock = || Instance::lock(&path, "sysbox-x", "--run-dir");
        let first = lock().unwrap();
        let error = lock().unwrap_err().to_string();
        assert!(error.contains(&format!("sysbox-x runs already with pid {}", std::process::id())));
        drop(first);
        lock().unwrap();
    }

    #[test]
    fn who_is_dead_is_dying_and_who_lives_is_not() {
        assert!(!is_dying(&std::process::id().to_string()));
        assert!(is_dying("4194305"), "beyond the highest number that there is");
        assert!(!is_dying("") && !is_dying("x"), "nobody has written a number yet");
    }
}
