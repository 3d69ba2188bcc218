//! Processes of a container: putting them in, listing them, signalling them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sysbox_kernel::process::send_signal;

use crate::cgroup::{Cgroup, Hierarchy};
use crate::error::{Context, Error, Result};
use crate::{file, tree};

/// How long the kernel may take to end the processes of a container.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// `SIGKILL` of signal(7); `SIGRTMAX`, the last real-time one.
const SIGKILL: i32 = 9;
const LAST_SIGNAL: i32 = 64;

/// Leaf for a process that finds no other cgroup that takes processes.
const LAST_LEAF: &str = "exec.scope";

impl Cgroup {
    /// Puts process `pid` (as seen in our pid namespace; 0 is ourselves) into the container's
    /// directory of every hierarchy. All its threads move; children that it makes later are born
    /// there. This takes 5 to 20 ms: see [`Cgroup::entrance`] for what does not.
    ///
    /// # Errors
    /// [`Error::Io`]; `ESRCH` when there is no such process, `EBUSY` when the container's v2
    /// directory already gives controllers to children (use [`Cgroup::attach_exec`]).
    pub fn attach(&self, pid: i32) -> Result<()> {
        // The unified one first: what the process forks meanwhile is then killed with the rest.
        if let Some(dir) = self.unified() {
            put(dir, pid).context("put a process into cgroup", dir)?;
        }
        self.attach_v1(pid)
    }

    /// Puts a process that was made by `exec` into a running container.
    ///
    /// On v2 it goes to the leaf `init_leaf` (where the container's init was put), or to the
    /// container's own directory while no process inside has made that give controllers to
    /// children. Once it has, a directory of v2 takes no processes; then the leaf is made
    /// again, owned like the container's directory, so that container root may remove it.
    ///
    /// # Errors
    /// As [`Cgroup::attach`].
    pub fn attach_exec(&self, pid: i32, init_leaf: &str) -> Result<()> {
        if let Some(dir) = self.unified() {
            attach_unified(dir, pid, init_leaf)?;
        }
        self.attach_v1(pid)
    }

    fn attach_v1(&self, pid: i32) -> Result<()> {
        for hierarchy in self.hierarchies.iter().filter(|h| !h.is_unified()) {
            put(&hierarchy.dir, pid).context("put a process into cgroup", &hierarchy.dir)?;
        }
        Ok(())
    }

    /// Every process of the container, sorted: those in its directory and in all that are below,
    /// at any depth. Empty when the cgroup does not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        let dir = self.main_dir();
        collect(dir, &mut pids).context("list the processes of cgroup", dir)?;
        Ok(pids.into_iter().collect())
    }

    /// Does any process live in the container's cgroup or below?
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn populated(&self) -> Result<bool> {
        let dir = self.main_dir();
        populated(dir).context("look into cgroup", dir)
    }

    /// Signals every process of the container, with a number of signal(7), real-time ones included.
    ///
    /// For `SIGKILL` this ends when no process is left: `cgroup.kill` (Linux 5.14) where there is
    /// one, which no fork can outrun; else signals are repeated until the tree is empty. Any other
    /// signal goes once to each process that is there now.
    ///
    /// # Errors
    /// [`Error::Timeout`] when processes survive `SIGKILL` for ten seconds (they are stuck in the
    /// kernel); [`Error::Io`].
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let dir = self.main_dir();
        if !(1..=LAST_SIGNAL).contains(&signal) {
            let error = io::Error::from(Errno::INVAL);
            return Err(error).context("signal the processes of cgroup", dir);
        }
        if signal != SIGKILL {
            return self.signal_each(signal, &self.pids()?);
        }
        if let Some(unified) = self.unified() {
            match file::write(unified, "cgroup.kill", "1") {
                Err(error) if !file::is_gone(&error) => {
                    return Err(error).context("kill the processes of cgroup", unified);
                }
                _ => {}
            }
        }
        let begun = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            // v1 too: a process that an interrupted attach left half way is in some of them only.
            let pids = self.pids_anywhere()?;
            if pids.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > KILL_DEADLINE {
                let path = dir.to_owned();
                return Err(Error::Timeout { what: "SIGKILL", path, waited: KILL_DEADLINE });
            }
            self.signal_each(SIGKILL, &pids)?;
            // Tasks that a v1 freezer holds die only when it lets them go.
            self.thaw_v1()?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The processes of the container's directories in all hierarchies.
    fn pids_anywhere(&self) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        for Hierarchy { dir, .. } in &self.hierarchies {
            collect(dir, &mut pids).context("list the processes of cgroup", dir)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Signals each process by a pidfd that is known to be of a process of the container.
    fn signal_each(&self, signal: i32, pids: &[i32]) -> Result<()> {
        // Bounded by the descriptors that we may have open.
        for pids in pids.chunks(256) {
            let open = |pid: &i32| {
                let pid = Pid::from_raw(*pid)?;
                Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))
            };
            let pidfds: Vec<_> = pids.iter().filter_map(open).collect();
            // A number that is still listed now was not given to a process outside in between.
            let still = self.pids_anywhere()?;
            for (pid, pidfd) in pidfds {
                if still.binary_search(&pid.as_raw_nonzero().get()).is_err() {
                    continue;
                }
                match send_signal(&pidfd, signal) {
                    // It has ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
                    result => result.context("signal the processes of cgroup", self.main_dir())?,
                }
            }
        }
        Ok(())
    }
}

/// Puts a process that was made by `exec` where the unified hierarchy takes it.
fn attach_unified(dir: &Path, pid: i32, init_leaf: &str) -> Result<()> {
    let leaf = dir.join(init_leaf);
    match put(&leaf, pid) {
        Ok(()) => return Ok(()),
        Err(error) if file::is_gone(&error) || takes_no_processes(&error) => {}
        Err(error) => return Err(error).context("put a process into cgroup", leaf),
    }
    match put(dir, pid) {
        Ok(()) => return Ok(()),
        Err(error) if takes_no_processes(&error) => {}
        Err(error) => return Err(error).context("put a process into cgroup", dir),
    }
    let mut result = Ok(());
    for leaf in [leaf, dir.join(LAST_LEAF)] {
        result = make_leaf(dir, &leaf)
            .and_then(|()| put(&leaf, pid))
            .context("put a process into cgroup", leaf);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Writes `pid` to `cgroup.procs`.
fn put(dir: &Path, pid: i32) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match file::write(dir, "cgroup.procs", &pid.to_string()) {
            // A process that is just being forked (TASK_NEW) is refused with EINVAL.
            Err(error)
                if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) && tries < 5 =>
            {
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// `EBUSY`: gives controllers to children. `EOPNOTSUPP`: is threaded, or below a threaded one.
fn takes_no_processes(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::BUSY | Errno::OPNOTSUPP))
}

/// Makes a child cgroup that belongs to the owner of its parent.
pub(crate) fn make_leaf(parent: &Path, leaf: &Path) -> io::Result<()> {
    match fs::create_dir(leaf) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    let owner = fs::metadata(parent)?;
    crate::delegate::chown_tree_node(leaf, owner.uid(), owner.gid())
}

/// Adds the processes of the tree at `dir`.
fn collect(dir: &Path, pids: &mut BTreeSet<i32>) -> io::Result<()> {
    let result = tree::for_each(dir, |cgroup| match cgroup.read("cgroup.procs") {
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            Ok(())
        }
        // A threaded cgroup: its processes are listed by the domain above it.
        Err(error) if takes_no_processes(&error) || file::is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    });
    match result {
        Err(error) if file::is_gone(&error) => Ok(()),
        result => result,
    }
}

/// Does any process but `tenant` live at `dir` or below?
pub(crate) fn in_use(dir: &Path, tenant: Option<i32>) -> io::Result<bool> {
    if tenant.is_none() {
        return populated(dir);
    }
    let mut pids = BTreeSet::new();
    collect(dir, &mut pids)?;
    Ok(pids.into_iter().any(|pid| Some(pid) != tenant))
}

/// Does any process live at `dir` or below?
pub(crate) fn populated(dir: &Path) -> io::Result<bool> {
    match file::read(dir, "cgroup.events") {
        Ok(text) => return Ok(file::keyed(&text, "populated") == Some(1)),
        Err(error) if !file::is_gone(&error) => return Err(error),
        // No such file: v1, or the cgroup is gone.
        Err(_) => {}
    }
    let mut pids = BTreeSet::new();
    collect(dir, &mut pids)?;
    Ok(!pids.is_empty())
}
