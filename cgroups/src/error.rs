//! What can go wrong with a cgroup, in words for the person who ran the container.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a cgroup directory or file failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb phrase ("create cgroup").
        action: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// No cgroup file system is mounted.
    #[error(
        "no cgroup hierarchy is mounted (looked in /proc/self/mountinfo): mount cgroup2 on /sys/fs/cgroup"
    )]
    NoHierarchy,

    /// `linux.cgroupsPath` (or the container id) names no usable directory.
    #[error("linux.cgroupsPath {path:?}: {reason}")]
    BadPath {
        /// The value that was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The cgroup exists and has processes: it belongs to something else.
    #[error(
        "container's cgroup is not empty: {path} is in use by other processes (choose another linux.cgroupsPath, or stop what runs there)"
    )]
    InUse {
        /// The directory that has processes in it or below it.
        path: PathBuf,
    },

    /// The cgroup exists and is frozen: whatever starts in it would never run.
    #[error(
        "container's cgroup unexpectedly frozen: {path} (thaw it, or choose another linux.cgroupsPath)"
    )]
    Frozen {
        /// The frozen directory.
        path: PathBuf,
    },

    /// The systemd driver was asked for and cannot be used.
    #[error("systemd cgroup driver: {reason}")]
    Systemd {
        /// Why, and what to do.
        reason: String,
    },

    /// A limit was asked for whose controller this host (or this cgroup) does not have.
    #[error(
        "invalid configuration: cannot set {field}: no hierarchy of this host has the {controller} controller for cgroup {path} \
         (remove the limit, or enable the controller)"
    )]
    NoController {
        /// Field of the OCI specification, such as `linux.resources.memory.limit`.
        field: String,
        /// Name of the controller.
        controller: String,
        /// The container's directory.
        path: PathBuf,
    },

    /// A limit has no meaning in the cgroup version that this host uses.
    #[error("cannot set {field}: {reason}")]
    Unsupported {
        /// Field of the OCI specification.
        field: String,
        /// Why it cannot be honoured.
        reason: String,
    },

    /// The kernel refused a limit.
    #[error("cannot set {field} to {value:?} ({path}): {source}{hint}")]
    Limit {
        /// Field of the OCI specification.
        field: String,
        /// What was written.
        value: String,
        /// The file that was written to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
        /// What explains the refusal, or empty.
        hint: String,
    },

    /// `linux.intelRdt` cannot be honoured.
    #[error("{field}: {reason}")]
    Rdt {
        /// Field of the OCI specification.
        field: String,
        /// Why, with what the kernel says, and what to do.
        reason: String,
    },

    /// The kernel's eBPF device filter could not be installed.
    #[error("cannot install the device filter (linux.resources.devices) on {path}: {source}")]
    DeviceFilter {
        /// The container's directory in the unified hierarchy.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },

    /// The kernel did not finish in time.
    #[error("{what} of cgroup {path} not finished after {waited:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// The container's directory.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
}

impl Error {
    /// The kernel's error number, where a system call is the cause.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. }
            | Error::Limit { source, .. }
            | Error::DeviceFilter { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Adds to an I/O result what was being done, and to which file.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|error| Error::Io { action, path: path.into(), source: error.into() })
    }
}
