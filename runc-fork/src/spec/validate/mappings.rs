//! `linux.uidMappings` and `linux.gidMappings`, where the engine gives them.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};

use crate::spec::Error;

pub(super) fn check(linux: &Linux) -> Result<(), Error> {
    let joins = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::User && n.path().is_some();
    if linux.namespaces().iter().flatten().any(joins) {
        // They are those of the namespace, whatever stands here.
        return Ok(());
    }
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) => Ok(()),
        (false, false) => {
            check_list("linux.uidMappings", uids)?;
            check_list("linux.gidMappings", gids)
        }
        (no_uids, _) => {
            let field = if no_uids { "linux.uidMappings" } else { "linux.gidMappings" };
            let remedy = "give both or none; without any, the container gets ids of its own";
            Err(Error::field(field, "is missing", remedy))
        }
    }
}

fn check_list(name: &str, list: &[LinuxIdMapping]) -> Result<(), Error> {
    for (index, mapping) in list.iter().enumerate() {
        let refuse = |reason: String, remedy: &str| {
            Err(Error::field(format!("{name}[{index}]"), reason, remedy))
        };
        let (inside, host, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        if size == 0 {
            return refuse("has size 0".into(), "");
        }
        // The last id, 2^32 - 1, means "none" to the kernel.
        if inside.max(host).checked_add(size).is_none() {
            return refuse("ends above the largest id".into(), "");
        }
        if host == 0 {
            let remedy = "give ids that belong to nobody, or none to get some";
            return refuse("maps the host's root into the container".into(), remedy);
        }
        let overlaps = |a: u32, b: u32, size_b: u32| a < b + size_b && b < a + size;
        for (earlier, other) in list[..index].iter().enumerate() {
            if overlaps(inside, other.container_id(), other.size()) {
                return refuse(format!("overlaps {name}[{earlier}] inside the container"), "");
            }
            if overlaps(host, other.host_id(), other.size()) {
                return refuse(format!("overlaps {name}[{earlier}] on the host"), "");
            }
        }
    }
    if list.iter().all(|mapping| mapping.container_id() != 0) {
        return Err(Error::field(name, "maps no root (id 0 inside)", "add an entry for id 0"));
    }
    Ok(())
}
