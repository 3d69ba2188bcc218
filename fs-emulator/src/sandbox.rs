//! What the threads that talk to others give up before they begin.
//!
//! Requests come from inside containers, so whoever reads them should be able to do little: read
//! the host's /proc and /sys, keep records in the run directory, and nothing else. The main thread,
//! which reads nothing but signals, keeps the rights that unmounting the file system at the end
//! takes, the thread that watches the store keeps what a new holder needs, and the one that makes
//! pressure triggers may write to cgroup files and nothing else.

use std::io;
use std::path::Path;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};
use sysbox_kernel::landlock::{self, Access};

/// A container may make cgroup directories that only their owner can enter.
const KEPT: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// Confines the calling thread and all that it will start.
///
/// # Errors
/// Rights could not be dropped. A kernel without Landlock is no error: that part is left out.
pub fn enter(run_dir: &Path) -> io::Result<()> {
    let read = Access::READ_FILE | Access::READ_DIR;
    let keep = read
        | Access::WRITE_FILE
        | Access::TRUNCATE
        | Access::MAKE_REG
        | Access::MAKE_SOCK
        | Access::REMOVE_FILE;
    confine(&[(Path::new("/proc"), read), (Path::new("/sys"), read), (run_dir, keep)], KEPT)
}

/// Confines the calling thread to writing to what it owns in /sys: pressure files, on which only
/// `CAP_SYS_RESOURCE` may make triggers of any length (without: of multiples of two seconds).
///
/// # Errors
/// As [`enter`].
pub fn enter_for_triggers() -> io::Result<()> {
    let access = Access::READ_FILE | Access::WRITE_FILE;
    confine(&[(Path::new("/sys/fs/cgroup"), access)], CapabilitySet::SYS_RESOURCE)
}

fn confine(allowed: &[(&Path, Access)], kept: CapabilitySet) -> io::Result<()> {
    // Root need not have all of them.
    let kept = kept & capabilities(None)?.permitted;
    set_no_new_privs(true)?;
    if let Err(e) = landlock::restrict_thread(allowed) {
        tracing::warn!("the daemon's access to files is not restricted: Landlock: {e}");
    }
    for capability in CapabilitySet::all().iter().filter(|c| !kept.contains(*c)) {
        // Numbers that this kernel does not have are no loss.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_needed_is_left_and_no_more() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let confined = std::thread::spawn(move || {
            enter(&path).unwrap();
            fs::read("/proc/meminfo").unwrap();
            fs::read_dir("/sys/fs/cgroup").unwrap();
            fs::write(path.join("new"), "x").unwrap();
            fs::rename(path.join("new"), path.join("kept")).unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("CapEff:\t0000000000000004\n"), "{status}");
            assert!(status.contains("CapBnd:\t0000000000000004\n"), "{status}");
            assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
            if landlock::version().is_ok() {
                fs::read("/etc/passwd").unwrap_err();
                fs::write("/proc/self/oom_score_adj", "0").unwrap_err();
            }
        });
        confined.join().unwrap();
        fs::read("/etc/passwd").unwrap();
    }
}
