//! Taking back what was made for a container: all of it when `create` fails, parts of it at `delete`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};
use sysbox_cgroups::Cgroup;
use sysbox_cgroups::rdt::Group;
use sysbox_ipc::MgrClient;
use sysbox_kernel::process::wait_pidfd;

use crate::log;
use crate::state::Directory;

/// What was made so far; undone when dropped while armed.
pub struct Undo<'a> {
    directory: &'a Directory,
    /// Once it has registered the container.
    pub manager: Option<&'a MgrClient>,
    /// The container's cgroup.
    pub cgroup: Option<Cgroup>,
    /// Its group in resctrl.
    pub rdt: Option<Group>,
    /// Its first process.
    pub init: Option<OwnedFd>,
    /// Overlay work directory.
    pub work: Option<PathBuf>,
    armed: bool,
}

impl<'a> Undo<'a> {
    /// Nothing was made but the state directory.
    pub fn new(directory: &'a Directory) -> Self {
        Self {
            directory,
            manager: None,
            cgroup: None,
            rdt: None,
            init: None,
            work: None,
            armed: true,
        }
    }

    /// The container is there: nothing will be undone.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Some(init) = &self.init {
            let _ = pidfd_send_signal(init, Signal::KILL);
            let _ = wait_pidfd(init);
        }
        if let Some(cgroup) = &self.cgroup {
            remove_cgroup(cgroup);
        }
        if let Some(rdt) = &self.rdt {
            rdt.undo();
        }
        if let Some(work) = &self.work {
            remove_work_directory(work);
        }
        // As long as the directory is there, nobody else makes a container of this id: the manager,
        // which clears up after a runtime that ends, would take that one's for what this has left.
        if let Some(manager) = self.manager
            && let Err(e) = manager.unregister(&self.directory.manager_id())
        {
            log::warn(&format!("take the registration back: {e:#}"));
        }
        if let Err(e) = self.directory.remove() {
            log::warn(&format!("{e:#}"));
        }
    }
}

/// Ends what is left in a cgroup and removes it; tells what could not be done.
pub fn remove_cgroup(cgroup: &Cgroup) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let result = cgroup.kill_all(9).and_then(|()| cgroup.remove());
        match result {
            Ok(()) => return,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(e) => return log::warn(&format!("remove the cgroup: {e}")),
        }
    }
}

/// Removes the overlay work directory that was made beside the engine's.
pub fn remove_work_directory(work: &Path) {
    match fs::remove_dir_all(work) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            log::warn(&format!("remove {}: {e}", work.display()));
        }
        _ => {}
    }
}
