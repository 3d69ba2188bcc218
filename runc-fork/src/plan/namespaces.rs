//! Which namespaces a container gets and which it joins.

use std::path::PathBuf;

use anyhow::{Result, bail};
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Type;
use sysbox_kernel::ns::LinkNameSpaceType;
use sysbox_kernel::process::CloneFlags;

/// A namespace that exists already and is joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its kind.
    pub kind: LinkNameSpaceType,
    /// Path of the namespace file on the host.
    pub path: PathBuf,
}

/// The namespaces of a container. User, mount and cgroup namespaces are not listed: every
/// container has its own.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Made by the clone(2) that makes init.
    pub made: CloneFlags,
    /// Joined before.
    pub joined: Vec<Joined>,
    /// A time namespace of its own, with offsets in seconds and nanoseconds for the clocks
    /// `monotonic` and `boottime`; `None` for an offset means that the clock starts at zero.
    pub time: Option<TimeOffsets>,
    /// The pid namespace is new, so init is its first process.
    pub own_pid: bool,
}

/// `linux.timeOffsets`: nanoseconds are below a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    /// Offset of CLOCK_MONOTONIC.
    pub monotonic: Option<(i64, u32)>,
    /// Offset of CLOCK_BOOTTIME.
    pub boottime: Option<(i64, u32)>,
}

impl Namespaces {
    /// Reads `linux.namespaces` of the converted spec.
    pub fn new(linux: &oci::Linux) -> Result<Self> {
        let mut result =
            Self { made: CloneFlags::NONE, joined: Vec::new(), time: None, own_pid: false };
        for namespace in linux.namespaces().iter().flatten() {
            let (kind, flag) = match namespace.typ() {
                Type::Network => (LinkNameSpaceType::Network, CloneFlags::NEWNET),
                Type::Pid => (LinkNameSpaceType::ProcessID, CloneFlags::NEWPID),
                Type::Ipc => (LinkNameSpaceType::InterProcessCommunication, CloneFlags::NEWIPC),
                Type::Uts => (LinkNameSpaceType::HostNameAndNISDomainName, CloneFlags::NEWUTS),
                Type::Time if namespace.path().is_none() => {
                    result.time = Some(offsets(linux));
                    continue;
                }
                Type::Time => {
                    // One that was joined needs no offsets.
                    if let Some(path) = namespace.path() {
                        let kind = LinkNameSpaceType::Time;
                        result.joined.push(Joined { kind, path: path.clone() });
                    }
                    continue;
                }
                // The manager makes it, or has been handed the one to join.
                Type::User => continue,
                Type::Mount | Type::Cgroup if namespace.path().is_none() => continue,
                // Init's own view begins at the cgroup that it is in; another root would be no view
                // of the container.
                Type::Cgroup => continue,
                other => bail!(
                    "linux.namespaces: joining a {other} namespace by path is not supported; leave the path out"
                ),
            };
            match namespace.path() {
                Some(path) => result.joined.push(Joined { kind, path: path.clone() }),
                None => {
                    result.made = result.made.with(flag);
                    result.own_pid |= flag == CloneFlags::NEWPID;
                }
            }
        }
        Ok(result)
    }
}

impl Namespaces {
    /// Whether host and domain name are the container's own.
    pub fn own_names(&self) -> bool {
        let uts = LinkNameSpaceType::HostNameAndNISDomainName;
        self.joined.iter().all(|joined| joined.kind != uts)
    }
}

fn offsets(linux: &oci::Linux) -> TimeOffsets {
    let get = |clock: &str| {
        let offset = linux.time_offsets().as_ref()?.get(clock)?;
        Some((offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)))
    };
    TimeOffsets { monotonic: get("monotonic"), boottime: get("boottime") }
}
