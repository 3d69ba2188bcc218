//! `Commit`: the container's init exists, and the registration outlives the runtime's connection.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use sysbox_ipc::crash;

use super::{Manager, unknown};
use crate::coherence::{Container, is_overlay};
use crate::error::{Doing as _, Error, Result};
use crate::events::Kind;
use crate::registry::{Process, State as Life, process};

impl Manager {
    /// Tells what the runtime wants the user to know of a container.
    pub fn warned(&self, id: &str, text: &str) {
        tracing::warn!(container = id, "{text}");
        self.events.add(Kind::Warned, id, text);
    }

    /// Makes the registration of `id` permanent. The caller has made sure that it is the one who
    /// registered it.
    pub fn commit(&self, id: &str, init_pid: i32, pidfd: OwnedFd) -> Result<()> {
        let refuse = |why: &str| {
            Err(Error::new(format!("committing container {id}: init, process {init_pid}, {why}")))
        };
        if process::pid_of(pidfd.as_fd()) != Some(init_pid) {
            return refuse("is not the process of the descriptor that came with it, or is dead");
        }
        let Ok(init) = Process::of(init_pid) else {
            return refuse("is dead");
        };
        // Init has its root, and still runs the runtime's code: what it has for a root now is the
        // container's overlay, not something that the container has put there.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{init_pid}/root"), flags, Mode::empty());
        let root = root.ok().filter(|fd| is_overlay(fd.as_fd()));
        if process::is_dead(pidfd.as_fd()) {
            return refuse("is dead");
        }
        let root_mount = root.as_ref().and_then(|fd| process::fdinfo(fd.as_fd(), "mnt_id:"));

        let (key, rootfs, view, cgroup) = {
            let mut state = self.lock();
            let view = state.live.get(id).ok_or_else(|| unknown(id))?.view.clone();
            let record = state.registry.get(id).ok_or_else(|| unknown(id))?;
            let (key, rootfs) = (record.key, record.rootfs.clone());
            let cgroup = PathBuf::from(&record.cgroups.unified);
            state
                .registry
                .update(id, |record| {
                    record.state = Life::Running;
                    record.init = Some(init);
                    record.root_mount = root_mount;
                    record.volumes.iter_mut().for_each(|v| v.new = false);
                })
                .doing(|| format!("recording container {id}"))?;
            (key, rootfs, view, cgroup)
        };
        crash::point("commit.recorded");
        self.events.add(Kind::Running, id, format!("init is process {init_pid}"));
        self.released.notify_all();
        self.owners.forget(id);
        if let Some(view) = view {
            let init_pid = init.pid;
            view.set_container(root.map(|root| Container::new(root, init_pid, cgroup)));
            self.coherence.watch(key, view, &rootfs);
        }
        // Last: an init that has died meanwhile is reported now, when all is in place.
        self.inits.watch(key, pidfd).doing(|| format!("watching the init of container {id}"))
    }
}
