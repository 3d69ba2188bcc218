//! What this process uses, and how often it was started.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sysbox_ipc::proto;

static STARTS: OnceLock<u32> = OnceLock::new();

/// Counts this start of the daemon. `file` is in the run directory: the count begins anew with every
/// boot of the machine. A full or read-only file system costs the count and nothing else.
pub fn count_start(file: &Path) {
    let before = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let starts = before.unwrap_or(0_u32).saturating_add(1);
    if let Err(e) = fs::write(file, format!("{starts}\n")) {
        tracing::warn!("counting the starts of this daemon in {}: {e}", file.display());
    }
    let _ = STARTS.set(starts);
}

/// What this process uses now; what can't be read is 0.
pub fn resources() -> proto::Resources {
    proto::Resources {
        descriptors: fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u32),
        resident_bytes: resident_kib() * 1024,
        starts: STARTS.get().copied().unwrap_or(0),
        threads: fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count() as u32),
    }
}

/// Raises the soft limit of open files, usually 1024, to the hard one, and returns how many may be open: some
/// descriptors are held for each container.
pub fn raise_descriptor_limit() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let Rlimit { maximum, .. } = before;
    let now = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(e) => {
            tracing::warn!("raising the limit of open files: {e}");
            before.current
        }
    };
    now.unwrap_or(u64::MAX)
}

/// `VmRSS` of proc_pid_status(5).
fn resident_kib() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_and_resources_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("starts");
        fs::write(&file, "41\n").unwrap();
        count_start(&file);
        assert_eq!(fs::read_to_string(&file).unwrap(), "42\n");
        let used = resources();
        assert_eq!(used.starts, 42);
        assert!(used.descriptors >= 3 && used.resident_bytes > 100_000 && used.threads >= 1);
    }
}
