//! Fields of the runtime-spec that a system container does not have: refused by name, since to
//! leave out what was asked for would be worse.

use oci_spec::runtime::{Linux, Spec};

use crate::spec::Error;

pub(super) fn check(spec: &Spec, linux: &Linux) -> Result<(), Error> {
    let refuse = |field: &str, reason: &str, remedy: &str| Err(Error::field(field, reason, remedy));
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt", "Intel RDT is not supported", "leave it out");
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        let remedy = "move the devices with ip(8) in a createRuntime hook";
        return refuse("linux.netDevices", "moving network devices is not supported", remedy);
    }
    let mapped_tmpfs = spec.mounts().iter().flatten().enumerate().find(|(_, mount)| {
        let given = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
        given(mount.uid_mappings()) != given(mount.gid_mappings())
    });
    if let Some((index, _)) = mapped_tmpfs {
        let reason = "uidMappings and gidMappings must both be given";
        return Err(Error::field(format!("mounts[{index}]"), reason, ""));
    }
    Ok(())
}
