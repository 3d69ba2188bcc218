//! The mount broker: makes the mounts that the kernel refuses inside a system container although
//! they are legitimate there.
//!
//! # Why
//!
//! The mounts of a container are locked by the kernel, single virtualised files over /proc and
//! /sys among them. While such files are locked, the kernel refuses every *new* procfs and sysfs
//! inside ("too revealing", `EPERM`), which every inner container engine needs. Seccomp sends
//! these calls here; the broker makes the file system as the host, puts the virtualised files on
//! it, and attaches it where the caller asked, in the caller's mount namespace.
//!
//! `sysinfo(2)` comes here as well: it tells the host's memory and load, and is answered with the
//! container's numbers instead, those of the virtualised files.
//!
//! # Parts
//!
//! | module | job |
//! |---|---|
//! | `listen` | one epoll set over all listeners, an elastic pool of threads, deadlines |
//! | `gate`, `deadline` | how many requests of one container are worked on at a time, and how long |
//! | `request` | registers to a request, for each system call ABI |
//! | `decide` | what to do with a request: pure functions of facts |
//! | `caller` | the facts: memory, credentials, namespaces, root and working directory |
//! | `status`, `mountinfo` | the texts of procfs that facts are read from |
//! | `host` | what this kernel can do, and where threads come home to |
//! | `made` | how many mounts were made for a container |
//! | `resolve` | a path as the caller would walk it |
//! | `worker` | a thread's excursions into other namespaces and identities, and its way back |
//! | `serve` | the work itself, a file a kind |
//!
//! # Rules
//!
//! - Every string is read once, into our own memory, and what is acted upon is the object it led
//!   to. Memory that the caller can change is never looked at twice.
//! - A refusal is spoken by the kernel: the call *continues*, and the kernel checks it with the
//!   caller's own rights. So the broker can only add what it decided to add, and a bug in its
//!   checks that says "no" costs nothing but the service.
//! - It fails closed: a mount whose virtualised files can't be attached is not made.
//! - Nothing here waits for another process, but `sysinfo(2)` for `sysbox-fs`, which has the numbers.
//!   What can block all the same (a path that leads over
//!   a file system which the container serves itself) hangs threads of that container's share only,
//!   and the caller gets `ETIMEDOUT`.
//!
//! # When the manager dies
//!
//! Listeners are kept by somebody else as well, and so is the [`Journal`] that every request is
//! taken into. The next manager serves the listeners on and does again what was left half done. A
//! step that must not be done twice is noted before it is taken, by the id of the mount that it makes
//! or takes off: whether that mount is there tells whether the step was taken.
//!
//! # Two answers that are not the kernel's
//!
//! Real software goes by the mount table, in which virtualised files stand, and gives up at an error: an
//! `umount` of one below /sys (Podman with `--userns=auto`) and a remount of one that is not there in the
//! caller's network namespace (bubblewrap) succeed, and change nothing.
//!
//! # What is not locked, and what it costs
//!
//! The mounts that a container *starts* with are locked. One that the broker adds later belongs to
//! the container: with `umount -l` (or by moving it away) container root can strip a virtualised
//! file off, and then sees the host's number in that file of that mount. The file permissions of
//! procfs and sysfs, which guard the host, are not touched by that. A mount namespace that is
//! copied into a nested user namespace is locked by the kernel as always, broker-made mounts and
//! their files included.
//!
//! The kernel's memory for a mount is charged to who makes it, here the manager; so how many are made for one
//! container is bounded by `fs.mount-max` (see `made`), which the kernel applies to each mount namespace. What is read of a container (strings, mount tables,
//! mounts on a mount) has a limit each, beyond which the kernel answers.

mod caller;
mod deadline;
mod decide;
mod gate;
mod host;
mod listen;
mod made;
mod mountinfo;
mod request;
mod resolve;
mod serve;
mod status;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use sysbox_kernel::notify::{self, Journal, NamespaceId, Taking};

pub use host::Features;
pub use made::Made;

/// A system container, as far as its mounts are concerned.
#[derive(Debug)]
pub struct Container {
    /// Name for logs; listeners of containers with the same one share their part of the threads.
    pub id: String,
    /// Its user namespace: callers in it or below it are served.
    pub userns: OwnedFd,
    /// Directory of its virtualised files, on one file system of its own.
    pub emulated_dir: PathBuf,
    /// Those files, relative to `emulated_dir`: `proc/meminfo`, `sys/devices/system/cpu/online`.
    /// The first part says which file system a file covers, the rest where.
    pub emulated_files: Vec<String>,
    /// What was made for it.
    pub made: Made,
}

/// The running broker. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Absent in the reduced mode.
    pool: Option<Arc<listen::Pool>>,
}

impl Broker {
    /// Starts it, with whatever of its methods this kernel has.
    ///
    /// Requests that are being served are written down in `journal`. `ended` is called with the
    /// number of a listener when no task is left under its filter.
    ///
    /// # Errors
    /// When the process may not do what the broker does (it needs all of root's capabilities), or
    /// /proc is not mounted.
    pub fn start(
        journal: Arc<Journal>,
        ended: impl Fn(u64) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let features = match Features::probe() {
            // The answer of an outer broker. There can be no second listener below its filter, so
            // nobody will ask this one for anything; what is locked is locked without it.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSYS) => {
                tracing::warn!(
                    "another system container is around this manager and serves the mounts: \
                     containers start without a broker of their own"
                );
                return Ok(Self { pool: None });
            }
            probed => probed,
        };
        let features = features.map_err(|error| {
            let text = format!(
                "starting the mount broker: making a procfs to find out what this kernel can do: \
                 {error} (the manager needs all capabilities of root in the host's user namespace)"
            );
            io::Error::new(error.kind(), text)
        })?;
        Self::start_with(features, journal, ended)
    }

    /// Starts it with a choice of methods, to try the ways of older kernels on a newer one.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_with(
        features: Features,
        journal: Arc<Journal>,
        ended: impl Fn(u64) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let host = host::Host::new(features)?;
        let pool = listen::Pool::start(host, journal, listen::Ended(Box::new(ended)))?;
        Ok(Self { pool: Some(pool) })
    }

    /// Serves the requests of `listener` until no task under its filter is left. `number` names it
    /// in the journal: not 0, and no other listener's.
    ///
    /// `pidfd` is the process that the filter was made for; it must be in the container's user
    /// namespace (a mix-up would make every request of it fail in silence).
    ///
    /// # Errors
    /// `InvalidInput` for a process outside of the container; what epoll said.
    pub fn attach(
        &self,
        number: u64,
        container: Arc<Container>,
        listener: OwnedFd,
        pidfd: OwnedFd,
    ) -> io::Result<()> {
        let userns = notify::id_of(&container.userns)?;
        if !caller::is_inside(&pidfd, userns)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the process whose system calls are to be served for container {} is not in \
                     the user namespace of that container",
                    container.id
                ),
            ));
        }
        self.add(number, container, userns, listener, Vec::new())
    }

    /// Serves on a listener that a manager that died has served, and first what was `left` of its
    /// requests.
    ///
    /// # Errors
    /// What epoll said, or no thread can be made.
    pub fn take_over(
        &self,
        number: u64,
        container: Arc<Container>,
        listener: OwnedFd,
        left: Vec<Taking>,
    ) -> io::Result<()> {
        let userns = notify::id_of(&container.userns)?;
        self.add(number, container, userns, listener, left)
    }

    fn add(
        &self,
        number: u64,
        container: Arc<Container>,
        userns: NamespaceId,
        listener: OwnedFd,
        left: Vec<Taking>,
    ) -> io::Result<()> {
        let listener = notify::Listener::new(listener);
        if let Err(error) = listener.set_sync_wake_up() {
            tracing::debug!(container = container.id, %error, "no synchronous wake-up (before 6.6)");
        }
        match &self.pool {
            Some(pool) => pool.add(number, container, userns, listener, left),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this manager runs without a mount broker, because another system container is \
                 around it",
            )),
        }
    }
}
