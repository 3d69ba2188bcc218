//! Fields of the runtime-spec that a system container does not have: refused by name, since to
//! leave out what was asked for would be worse.

use oci_spec::runtime::{Linux, Spec};

use crate::spec::Error;

pub(super) fn check(spec: &Spec, linux: &Linux) -> Result<(), Error> {
    for (name, device) in linux.net_devices().iter().flatten() {
        for name in std::iter::once(name).chain(device.name()) {
            if !is_device_name(name) {
                let reason = format!("{name:?} is no name of a network device");
                return Err(Error::field("linux.netDevices", reason, ""));
            }
        }
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

/// dev_valid_name() of the kernel; "all" and "default" are directories of settings.
fn is_device_name(name: &str) -> bool {
    let reserved = ["", ".", "..", "all", "default"].contains(&name);
    let bad = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !reserved && name.len() < 16 && !name.contains(bad)
}
