//! `linux.sysctl`: only what belongs to a namespace of the container.

use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};

use crate::spec::Error;

/// Settings of the ipc namespace, besides `fs.mqueue.*`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn check(linux: &Linux) -> Result<(), Error> {
    let refuse = |reason: String, remedy: &str| Err(Error::field("linux.sysctl", reason, remedy));
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name.as_str()) {
        // Either separator is allowed (sysctl(8)); a setting may itself have a dot in its path.
        let dotted = name.replace('/', ".");
        if dotted.split('.').any(str::is_empty) || name.contains('\0') {
            return refuse(format!("{name:?} is not a name"), "");
        }
        let namespace = if dotted.starts_with("net.") {
            Type::Network
        } else if dotted.starts_with("fs.mqueue.") || IPC.contains(&dotted.as_str()) {
            Type::Ipc
        } else if dotted == "kernel.domainname" {
            Type::Uts
        } else if dotted == "kernel.hostname" {
            return refuse(format!("{name} has a field of its own"), "use hostname");
        } else {
            return refuse(
                format!("{name} belongs to the whole host"),
                "set it on the host, or inside the container with sysctl(8)",
            );
        };
        let namespaces = linux.namespaces().as_deref().unwrap_or_default();
        if namespaces.iter().all(|n| n.typ() != namespace) {
            return refuse(format!("{name} needs a {namespace} namespace of its own"), "");
        }
    }
    Ok(())
}
