//! What the runtime remembers of a container between two commands: a directory
//! `<root>/<id>` with
//!
//! - `state.json`: [`State`], written atomically, last of all files;
//! - `config.json`: the converted spec, for `exec` and hooks;
//! - `intel-rdt.json`: its group in the kernel's resctrl file system, for the few that have one; written
//!   before the group is made;
//! - `exec.fifo`: a byte written to it starts the program; gone once that happened;
//! - `lock`: flock(2)ed by every command that changes the container.

mod directory;
mod process;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime as oci;
use serde::{Deserialize, Serialize};
use sysbox_cgroups::Cgroup;

pub use directory::{DEFAULT_ROOT, Directory, list};
pub use process::{Identity, is_alive};

use crate::plan::Ids;

/// Version of the layout of `state.json`; fields are only ever added.
pub const VERSION: u32 = 1;

/// A container as it was created.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// [`VERSION`] of the runtime that wrote it.
    pub version: u32,
    /// Container id.
    pub id: String,
    /// `ociVersion` of the bundle.
    pub oci_version: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root file system as the engine mounted it.
    pub rootfs: PathBuf,
    /// Init, recognisable over reuse of its pid and over reboots.
    pub init: Identity,
    /// Time of creation, RFC 3339.
    pub created: String,
    /// Annotations of the spec, as the engine wrote it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Its init system; earlier versions noted it among the annotations.
    #[serde(default)]
    pub init_system: Option<String>,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its ID mappings.
    pub ids: Ids,
    /// Overlay work directory to remove with the container.
    #[serde(default)]
    pub work_directory: Option<PathBuf>,
    /// Whether init is the first process of a pid namespace of its own: then its end ends all.
    pub own_pid_namespace: bool,
    /// Whether system calls are handed to the manager.
    pub traps: bool,
    /// Whether the spec was converted to a system container's.
    pub system_container: bool,
}

/// runtime-spec "State".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waits for `start`.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Has ended.
    Stopped,
}

impl Status {
    /// The word of the runtime-spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl State {
    /// What the container is doing now.
    pub fn status(&self, directory: &Directory) -> Status {
        if !is_alive(&self.init) {
            Status::Stopped
        } else if self.cgroup.frozen().unwrap_or(false) {
            Status::Paused
        } else if directory.start_fifo().exists() {
            Status::Created
        } else {
            Status::Running
        }
    }

    /// The state as hooks and `state` show it.
    pub fn to_oci(&self, status: Status) -> oci::State {
        let mut state = oci::State::default();
        state.set_version(self.oci_version.clone());
        state.set_id(self.id.clone());
        state.set_status(match status {
            Status::Created => oci::ContainerState::Created,
            Status::Running | Status::Paused => oci::ContainerState::Running,
            Status::Stopped => oci::ContainerState::Stopped,
        });
        state.set_pid((status != Status::Stopped).then_some(self.init.pid));
        state.set_bundle(self.bundle.clone());
        let annotations = self.annotations.clone().into_iter().collect();
        state.set_annotations((!self.annotations.is_empty()).then_some(annotations));
        state
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What the first version of the runtime wrote. It is never changed: containers that it has made
    /// run on when the runtime is replaced.
    const GOLDEN: &str = include_str!("golden-v1.json");

    #[test]
    fn a_container_of_the_first_version_is_understood() {
        let state: State = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!((state.id.as_str(), state.init.pid, state.version), ("c1", 2383, 1));
        let unified = Path::new("/sys/fs/cgroup/unified/docker/c1");
        assert_eq!(state.cgroup.unified(), Some(unified));
        assert_eq!(state.ids.host_uid(0), Some(1_935_008));
        assert!(state.traps && state.own_pid_namespace && state.system_container);
        let oci = state.to_oci(Status::Running);
        assert_eq!(oci.bundle(), &state.bundle);
    }

    #[test]
    fn fields_that_a_later_version_adds_are_passed_over() {
        let mut later: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        later["something_new"] = serde_json::json!({ "a": 1 });
        later["cgroup"]["something_new"] = 1.into();
        let state: State = serde_json::from_value(later).unwrap();
        assert_eq!(state.id, "c1");
    }
}
