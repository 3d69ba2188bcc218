//! Ways into a cgroup for a process that goes in by itself, without waiting.
//!
//! To move another process ([`Cgroup::attach`]) the kernel stops all forks and exits of the machine
//! for a moment, and to get there waits for an RCU grace period: 5 to 20 ms in practice. Neither is
//! needed for a process that is *born* in a v2 cgroup (`CLONE_INTO_CGROUP`), nor for a thread that
//! moves itself in v1 by writing `0` to `tasks`. All v1 hierarchies of a host take 0.2 ms that way.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroup;
use crate::error::{Context, Result};
use crate::{file, procs};

/// The open directories and files of a cgroup through which a new process enters it.
///
/// They are opened by the runtime, with the rights of host root; the process that enters needs no
/// rights of its own and sees no path. All are close-on-exec.
#[derive(Debug)]
pub struct Entrance {
    unified: Option<File>,
    tasks: Vec<(PathBuf, File)>,
}

impl Entrance {
    /// The v2 directory, for `CLONE_INTO_CGROUP`. `None` on a host without cgroup v2.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Puts the calling thread, which has to be the only one of its process, into every v1
    /// hierarchy. Nothing but `write(2)` is called, so a forked child may use it.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn join_v1(&self) -> Result<()> {
        for (path, tasks) in &self.tasks {
            rustix::io::retry_on_intr(|| rustix::io::write(tasks, b"0"))
                .context("put a process into cgroup", path)?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// The way in for the container's first process: its own directory in every hierarchy.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn entrance(&self) -> Result<Entrance> {
        self.entrance_at(self.unified().map(Path::to_owned))
    }

    /// The way in for an exec'd process. On v2 this is the leaf `init_leaf` if it takes processes,
    /// else the container's own directory if that does, else the leaf, made again and owned as the
    /// container's directory is.
    ///
    /// The tree inside belongs to the container and may change any time, so `clone3` can still be
    /// refused the directory (`EBUSY`, `EOPNOTSUPP`, `ENODEV`): then start the process elsewhere and
    /// move it with [`Cgroup::attach_exec`].
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn entrance_exec(&self, init_leaf: &str) -> Result<Entrance> {
        let Some(dir) = self.unified() else {
            return self.entrance_at(None);
        };
        let leaf = dir.join(init_leaf);
        let place = if takes_processes(&leaf) {
            leaf
        } else if takes_processes(dir) {
            dir.to_owned()
        } else {
            procs::make_leaf(dir, &leaf).context("create cgroup", &leaf)?;
            leaf
        };
        self.entrance_at(Some(place))
    }

    fn entrance_at(&self, unified: Option<PathBuf>) -> Result<Entrance> {
        let open_dir = |dir: PathBuf| File::open(&dir).context("open cgroup", dir);
        let v1 = self.hierarchies.iter().filter(|hierarchy| !hierarchy.is_unified());
        let open_tasks = |dir: &Path| {
            let path = dir.join("tasks");
            let file = OpenOptions::new().write(true).open(&path).context("open", &path)?;
            Ok((dir.to_owned(), file))
        };
        Ok(Entrance {
            unified: unified.map(open_dir).transpose()?,
            tasks: v1.map(|hierarchy| open_tasks(&hierarchy.dir)).collect::<Result<_>>()?,
        })
    }
}

/// Would the kernel take a process into this v2 directory now?
fn takes_processes(dir: &Path) -> bool {
    let read = |name: &str| -> io::Result<String> { file::read(dir, name) };
    let is_domain = match read("cgroup.type") {
        Ok(kind) => matches!(kind.trim(), "domain" | "domain threaded"),
        // The root of a hierarchy has no type.
        Err(_) => fs::exists(dir).unwrap_or(false),
    };
    is_domain
        && read("cgroup.subtree_control").is_ok_and(|controllers| controllers.trim().is_empty())
}
