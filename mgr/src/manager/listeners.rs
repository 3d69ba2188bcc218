//! Seccomp listeners: new ones from the runtime, and those that an earlier manager has served.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sysbox_ipc::crash;

use super::{Manager, State, unknown};
use crate::broker;
use crate::error::{Doing as _, Error, Result};
use crate::registry::{Process, process};

/// How long a new listener waits for `sysbox-fs`, which may be restarting.
const FILES: Duration = Duration::from_secs(10);

impl Manager {
    /// Hands a seccomp listener of a container to the broker.
    pub fn attach_listener(&self, id: &str, listener: OwnedFd, pidfd: OwnedFd) -> Result<()> {
        let (key, container) = self.container_with_files(id)?;
        let process = process::pid_of(pidfd.as_fd()).and_then(|pid| Process::of(pid).ok());
        let Some(process) = process else {
            return Err(Error::new(format!(
                "serving the mounts of container {id}: the process that asks for it is dead"
            )));
        };
        let Some(number) = self.kept.keep(key, process, listener.as_fd()) else {
            return Ok(());
        };
        crash::point("listener.kept");
        self.broker
            .0
            .attach(number, container, listener, pidfd)
            .inspect_err(|_| self.kept.ended(number))
            .doing(|| format!("serving the mounts of container {id}"))
    }

    /// Key and container, once its virtualised files are known. After a restart that takes until
    /// `sysbox-fs` has answered.
    fn container_with_files(&self, id: &str) -> Result<(u32, Arc<broker::Container>)> {
        let without = |state: &mut State| state.live.get(id).is_some_and(|l| l.container.is_none());
        let (state, _) = self
            .released
            .wait_timeout_while(self.lock(), FILES, without)
            .unwrap_or_else(PoisonError::into_inner);
        let live = state.live.get(id).ok_or_else(|| unknown(id))?;
        let key = state.registry.get(id).ok_or_else(|| unknown(id))?.key;
        let container = live.container.as_ref().ok_or_else(|| {
            Error::new(format!(
                "container {id} has no virtualised files yet, for sysbox-fs is not running"
            ))
            .remedy("start it with `systemctl start sysbox-fs` or run `sysbox-fs` as root")
        })?;
        Ok((key, Arc::clone(&container.0)))
    }

    /// Serves on what an earlier manager has served for a container that runs.
    pub(super) fn adopt_listeners(&self, key: u32, container: &Arc<broker::Container>) {
        for orphan in self.kept.adopt(key) {
            let (id, number) = (&container.id, orphan.number);
            tracing::debug!(container = id, number, left = orphan.left.len(), "served on");
            let taken = self.broker.0.take_over(number, container.clone(), orphan.fd, orphan.left);
            if let Err(e) = taken {
                tracing::error!(container = id, "its mounts are no longer served: {e}");
            }
        }
    }

    /// A planned end of the manager.
    pub fn stop(&self, run_dir: &Path) {
        self.kept.end(run_dir);
    }
}
