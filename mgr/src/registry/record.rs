//! What is kept on disk of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sysbox_ipc::proto;

use super::Process;
use crate::ids::{Holder, IdMapping, IdRange, host_ranges};
use crate::volumes::Owner;

/// Version of the files' format. A reader takes its own and older ones; fields are only added, with
/// a default.
pub const VERSION: u32 = 1;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Registered, not yet committed: taken back when the runtime's connection closes.
    Creating,
    /// Committed, and its init lives.
    Running,
    /// Its init has died; the runtime has not deleted it yet, so nothing is given back.
    Exited,
    /// Deleted by the runtime. It has no ids, but its volumes wait for the engine to start it again.
    Stopped,
}

impl State {
    /// As in the protocol's `ContainerStatus`, and as serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Stopped => "stopped",
        }
    }
}

/// Where the container's cgroup lies; see the protocol's `CgroupPaths`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Directory in the v2 hierarchy, empty if there is none.
    #[serde(default)]
    pub unified: String,
    /// v1 controller to directory.
    #[serde(default)]
    pub v1: BTreeMap<String, String>,
    /// One of them was there before the runtime asked: it belongs to somebody else.
    #[serde(default)]
    pub foreign: bool,
}

impl From<proto::CgroupPaths> for Cgroups {
    fn from(paths: proto::CgroupPaths) -> Self {
        let mut all = std::iter::once(&paths.unified).chain(paths.v1.values());
        let foreign = all.any(|dir| !dir.is_empty() && std::path::Path::new(dir).exists());
        Self { unified: paths.unified, v1: paths.v1.into_iter().collect(), foreign }
    }
}

impl From<&Cgroups> for proto::CgroupPaths {
    fn from(cgroups: &Cgroups) -> Self {
        let v1 = cgroups.v1.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        Self { unified: cgroups.unified.clone(), v1 }
    }
}

/// A volume of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Name of its directory under `volumes/<id>/`.
    pub name: String,
    /// Absolute path inside the container.
    pub destination: String,
    /// Made by the registration that is not committed yet: goes away with it.
    #[serde(default)]
    pub new: bool,
    /// Its directory in the container's own layer: then it is none of ours, and the engine keeps and
    /// removes it.
    #[serde(default)]
    pub in_layer: Option<PathBuf>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The engine's id.
    pub id: String,
    /// Number of this registration, never used again.
    pub key: u32,
    /// Where it is in its life.
    pub state: State,
    /// Root file system as the engine mounted it.
    pub rootfs: PathBuf,
    /// What the engine removes together with the container.
    pub owner: Option<Owner>,
    /// User ids; empty when stopped.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids; empty when stopped.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// The engine gave the mappings (with the spec, or with a user namespace to join); otherwise they
    /// are a range of ours that nobody else has.
    #[serde(default)]
    pub given: bool,
    /// Its control groups.
    #[serde(default)]
    pub cgroups: Cgroups,
    /// The runtime's directory of it.
    #[serde(default)]
    pub state_dir: PathBuf,
    /// The boot in which it was registered; processes of another boot are dead.
    pub boot_id: String,
    /// The runtime process that registered it.
    #[serde(default)]
    pub creator: Option<Process>,
    /// Its init, once committed.
    #[serde(default)]
    pub init: Option<Process>,
    /// Inode number of its user namespace (nsfs).
    #[serde(default)]
    pub userns_inode: u64,
    /// Mount id of init's root, as in /proc/PID/mountinfo, at commit.
    #[serde(default)]
    pub root_mount: Option<i32>,
    /// When it was registered, CLOCK_BOOTTIME in nanoseconds.
    #[serde(default)]
    pub created_boottime_ns: u64,
    /// Stores of inner engines.
    #[serde(default)]
    pub volumes: Vec<VolumeRecord>,
}

impl Record {
    /// Whether it holds ids, cgroups and processes.
    pub fn is_live(&self) -> bool {
        self.state != State::Stopped
    }

    /// Every range of host ids that it holds.
    pub fn ids(&self) -> impl Iterator<Item = IdRange> + '_ {
        host_ranges(&self.uid_mappings).chain(host_ranges(&self.gid_mappings))
    }

    /// Forgets what only a live container has.
    pub fn stop(&mut self) {
        self.state = State::Stopped;
        self.volumes.retain(|volume| volume.in_layer.is_none());
        self.uid_mappings.clear();
        self.gid_mappings.clear();
        self.given = false;
        self.cgroups = Cgroups::default();
        self.state_dir = PathBuf::new();
        (self.creator, self.init, self.root_mount) = (None, None, None);
        self.userns_inode = 0;
    }

    /// As the one who holds its ids; a stopped container holds none.
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            id: &self.id,
            uids: &self.uid_mappings,
            gids: &self.gid_mappings,
            given: self.given,
            userns: self.userns_inode,
        }
    }

    /// For the protocol; `source` is the host's directory of a volume.
    pub fn status(&self, source: impl Fn(&VolumeRecord) -> PathBuf) -> proto::ContainerStatus {
        proto::ContainerStatus {
            id: self.id.clone(),
            state: self.state.name().to_owned(),
            init_pid: self.init.map_or(0, |init| init.pid),
            uid_mappings: self.uid_mappings.iter().map(Into::into).collect(),
            volumes: self
                .volumes
                .iter()
                .map(|v| proto::Volume {
                    source: source(v).display().to_string(),
                    destination: v.destination.clone(),
                })
                .collect(),
        }
    }
}
