//! A container that is served: what was said about it, and what is remembered between reads.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::settings::Values;
use crate::view::cgroup::Hierarchy;
use crate::view::cpu::Accounts;
use crate::view::host::{Host, boot_wall_time};
use crate::view::load::Load;

/// What `AddContainer` said; this is what is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The engine's id of the container.
    pub id: String,
    /// Number of the container, never reused; inode numbers are made of it.
    pub key: u32,
    /// Host user id of the container's root: owner of its files.
    pub uid: u32,
    /// Host group id of the container's root.
    pub gid: u32,
    /// Directory in the cgroup v2 hierarchy; empty if the host has none.
    pub unified: String,
    /// v1 controllers and the container's directory there.
    pub v1: Vec<(String, String)>,
    /// Creation on CLOCK_BOOTTIME, nanoseconds.
    pub created_boottime_ns: u64,
    /// Names what its settings live as long as; empty if that is not known.
    #[serde(default)]
    pub lifetime: String,
}

/// What is remembered of a container between reads; what readers saw must not go backwards when
/// another daemon takes over.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// CPU time as shown so far.
    pub accounts: Accounts,
    /// Load averages.
    pub load: Load,
    /// Highest pid of its pid namespace seen so far.
    pub last_pid: u32,
}

/// A container that is served.
#[derive(Debug)]
pub struct Container {
    /// What was said about it.
    pub record: Record,
    /// Its cgroup directories.
    pub hierarchies: Vec<Hierarchy>,
    /// CPU time as shown so far.
    pub accounts: Mutex<Accounts>,
    /// What it wrote to settings. Change it by [`crate::containers::Containers::write`], which
    /// keeps it on disk.
    pub settings: Mutex<Values>,
    /// Its load averages.
    pub load: Mutex<Load>,
    /// When it was created, by the wall clock: time stamp of its files.
    pub created: SystemTime,
    last_pid: AtomicU32,
}

impl Container {
    /// A container that begins to be served.
    pub fn new(record: Record, host: &Host) -> Self {
        let place = |controllers: &str, dir: &str| {
            let dir = Path::new(dir);
            Hierarchy::new(controllers, dir, &host.cgroup_mounts(dir))
        };
        let mut hierarchies = Vec::new();
        if !record.unified.is_empty() {
            hierarchies.push(place("", &record.unified));
        }
        hierarchies.extend(record.v1.iter().map(|(controllers, dir)| place(controllers, dir)));
        let created = boot_wall_time() + record.created_boottime_ns;
        Self {
            record,
            hierarchies,
            accounts: Mutex::default(),
            settings: Mutex::default(),
            load: Mutex::default(),
            created: UNIX_EPOCH + Duration::from_nanos(created),
            last_pid: AtomicU32::new(0),
        }
    }

    /// The highest pid of the container's pid namespace seen so far, `seen` included.
    pub fn last_pid(&self, seen: u32) -> u32 {
        self.last_pid.fetch_max(seen, Ordering::Relaxed).max(seen)
    }
    /// What is remembered, to be kept.
    pub fn progress(&self) -> Progress {
        Progress {
            accounts: self.accounts.lock().unwrap_or_else(|e| e.into_inner()).clone(),
            load: *self.load.lock().unwrap_or_else(|e| e.into_inner()),
            last_pid: self.last_pid(0),
        }
    }

    /// Goes on from what was remembered.
    pub fn resume(&self, progress: Progress) {
        *self.accounts.lock().unwrap_or_else(|e| e.into_inner()) = progress.accounts;
        *self.load.lock().unwrap_or_else(|e| e.into_inner()) = progress.load;
        self.last_pid(progress.last_pid);
    }
}
