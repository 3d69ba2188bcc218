//! From a bundle to what `create` and `exec` work with: the steps of [`crate::spec`] in their order.

use std::path::Path;

use anyhow::{Context as _, Result};
use oci_spec::runtime as oci;
use rustix::thread::CapabilitySet;
use sysbox_ipc::proto;

use crate::log;
use crate::spec::{self, Context, Hints, Loaded, Options};

/// A bundle that was read and found possible; nothing has been changed for it yet.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The spec as the engine wrote it, and where it lies.
    pub bundle: Loaded,
    /// The user's wishes.
    pub options: Options,
    /// What the spec does not say.
    pub hints: Hints,
}

/// Reads and validates a bundle.
pub fn prepare(bundle: &Path) -> Result<Prepared> {
    let bundle = spec::load(bundle)?;
    let mut options = Options::of(&bundle.spec)?;
    if options.id_range_size == 0 {
        options.id_range_size = spec::ids_of_mounts(&bundle.spec);
    }
    for warning in bundle.warnings.iter().chain(&options.warnings) {
        log::warn(warning);
    }
    let hints = spec::hints(&bundle, &options)?;
    spec::validate(&bundle.spec, &hints, &spec::is_host_namespace)?;
    Ok(Prepared { bundle, options, hints })
}

impl Prepared {
    /// The init system that the container runs, if it is a system container.
    pub fn init_system(&self) -> Option<spec::InitSystem> {
        self.hints.init_system.filter(|_| self.options.system_container)
    }

    /// The spec of the system container with the ids that the manager gave.
    pub fn convert(&self, registered: &proto::Registered) -> Result<oci::Spec> {
        let capabilities = all_capabilities()?;
        let context = Context {
            options: &self.options,
            hints: &self.hints,
            capabilities: &capabilities,
            gid_count: ids_from_zero(&registered.gid_mappings),
        };
        let (converted, warnings) = spec::convert(self.bundle.spec.clone(), &context);
        for warning in warnings {
            log::warn(&warning);
        }
        Ok(converted)
    }
}

/// Reads the process of `exec --process`.
pub fn load_process(path: &Path) -> Result<oci::Process> {
    let (process, warnings) = spec::load_process(path)?;
    for warning in warnings {
        log::warn(&warning);
    }
    Ok(process)
}

/// Converts a process of `exec` as the container's own was; `container` is its converted spec.
pub fn convert_process(process: oci::Process, container: &oci::Spec) -> Result<oci::Process> {
    let options = Options::of(container)?;
    Ok(spec::convert_process(process, &options, &all_capabilities()?))
}

/// Every capability of this kernel. A user namespace has them all, whatever the host's own root
/// may lack: they count inside only.
fn all_capabilities() -> Result<oci::Capabilities> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let last = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let last: u32 = last.trim().parse().with_context(|| format!("parse {path}"))?;
    let names = CapabilitySet::all().iter_names();
    let known = names.filter(|(_, bit)| bit.bits().trailing_zeros() <= last);
    known
        .map(|(name, _)| serde_json::from_value(format!("CAP_{name}").into()))
        .collect::<Result<_, _>>()
        .context("name the kernel's capabilities")
}

/// How many ids, from 0 on without a gap, a mapping covers.
fn ids_from_zero(mappings: &[proto::IdMapping]) -> u32 {
    let mut sorted: Vec<_> = mappings.iter().collect();
    sorted.sort_by_key(|m| m.container_id);
    sorted.iter().fold(0, |count, m| {
        if m.container_id == count { count.saturating_add(m.size) } else { count }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_the_count() {
        let map = |container_id, size| proto::IdMapping { container_id, host_id: 9, size };
        assert_eq!(ids_from_zero(&[map(10, 5), map(0, 10)]), 15);
        assert_eq!(ids_from_zero(&[map(0, 10), map(11, 5)]), 10);
        assert_eq!(ids_from_zero(&[map(1, 5)]), 0);
    }
}
