//! Creations that outlive the manager under whom they began.
//!
//! The runtime connects again and makes the call under way once more. Until then the registration
//! belongs to no connection, and is an *orphan*: taken back if the runtime does not come.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use sysbox_ipc::proto;
use sysbox_kernel::notify;

use super::{Live, Manager, Runtime};
use crate::error::{Error, Result};
use crate::ids::host_root;
use crate::registry::{Process, Record, State as Life};
use crate::volumes::inode;

/// How long a runtime may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);

impl Manager {
    /// Keeps a creation that was interrupted, for its runtime to go on with.
    pub(super) fn expect(&self, record: &Record) {
        tracing::info!(container = record.id, "its creation goes on when its runtime comes back");
        let live = Live { view: self.view_of(record), ..Live::default() };
        let mut state = self.lock();
        state.live.insert(record.id.clone(), live);
        state.orphans.insert(record.id.clone(), Instant::now());
    }

    /// Whether `runtime` has begun to create the container under an earlier manager. Then the
    /// registration is the caller's from now on.
    pub fn adopt(&self, id: &str, runtime: Option<Process>) -> bool {
        let mut state = self.lock();
        let its =
            state.registry.get(id).is_some_and(|r| r.creator.is_some() && r.creator == runtime);
        its && state.orphans.remove(id).is_some()
    }

    /// Finds again what only the last manager had of a container in creation. `pid` is a process in
    /// its user namespace.
    pub fn resume(&self, id: &str, pid: i32) -> Result<()> {
        let lost = || {
            Error::new(format!(
                "going on with the creation of container {id}: its user namespace is not found"
            ))
        };
        let record = self.lock().registry.get(id).cloned().ok_or_else(lost)?;
        let userns = user_namespace(&record, pid).ok_or_else(lost)?;
        if let Some(live) = self.lock().live.get_mut(id) {
            live.userns = Some(userns);
        }
        self.ask_for_files(&record);
        Ok(())
    }

    /// Whether the container was committed with this init: by the last manager, who could not say so.
    pub fn is_committed(&self, id: &str, init_pid: i32) -> bool {
        let is = |r: &Record| {
            r.state == Life::Running && r.init.is_some_and(|init| init.pid == init_pid)
        };
        self.lock().registry.get(id).is_some_and(is)
    }

    /// Takes back orphans whose runtime is dead or does not come.
    pub(super) fn sweep_orphans(&self) {
        let gone: Vec<(String, Runtime)> = {
            let state = self.lock();
            let creator = |id: &str| state.registry.get(id)?.creator?.open();
            let fate = |(id, since): (&String, &Instant)| match creator(id) {
                None => Some((id.clone(), Runtime::Dead)),
                Some(_) if since.elapsed() > PATIENCE => Some((id.clone(), Runtime::Alive)),
                Some(_) => None,
            };
            state.orphans.iter().filter_map(fate).collect()
        };
        for (id, runtime) in gone {
            if self.lock().orphans.remove(&id).is_some() {
                self.roll_back(&id, runtime);
            }
        }
    }

    /// Has `sysbox-fs` know a container (again), and serves its mounts from then on.
    pub(super) fn ask_for_files(&self, record: &Record) {
        if let (Some(uid), Some(gid)) =
            (host_root(&record.uid_mappings), host_root(&record.gid_mappings))
        {
            self.fs.add_later(proto::AddContainer {
                id: record.id.clone(),
                key: record.key,
                uid,
                gid,
                cgroups: Some((&record.cgroups).into()),
                created_boottime_ns: record.created_boottime_ns,
                // It has been told that already.
                lifetime: String::new(),
            });
        }
    }
}

/// The user namespace of a container, by a process in it. That one may have gone into one of its own
/// making, which is then a descendant of the container's.
pub(super) fn user_namespace(record: &Record, pid: i32) -> Option<OwnedFd> {
    let its = File::open(format!("/proc/{pid}/ns/user")).ok()?;
    let ours = |ns: &OwnedFd| inode(ns).is_ok_and(|inode| inode == record.userns_inode);
    let parent = |ns: &OwnedFd| notify::parent(ns).ok().flatten();
    std::iter::successors(Some(OwnedFd::from(its)), parent).find(ours)
}
