//! `linux.namespaces`.

use std::collections::HashMap;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Type};

/// Adds what makes root of the container nobody outside (user), its cgroup the root of the
/// hierarchy that it sees (cgroup), and its boot the start of time (time). Those that the engine
/// lists, with a path or without, stay as they are.
pub(super) fn complete(linux: &mut Linux) {
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    if namespaces.iter().any(|namespace| namespace.typ() == Type::Time) {
        keep_clocks(linux);
    }
    for kind in [Type::User, Type::Cgroup, Type::Time] {
        if namespaces.iter().all(|namespace| namespace.typ() != kind) {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace.set_path(None);
            namespaces.push(namespace);
        }
    }
    linux.set_namespaces(Some(namespaces));
}

/// Who asks for a time namespace gets the offsets that were asked for, the host's clocks without any.
/// Only in one that we add do the clocks begin with the container.
fn keep_clocks(linux: &mut Linux) {
    let mut offsets: HashMap<_, _> = linux.time_offsets().clone().unwrap_or_default();
    for clock in ["monotonic", "boottime"] {
        offsets.entry(clock.to_owned()).or_default();
    }
    linux.set_time_offsets(Some(offsets));
}
