//! `linux.namespaces`: what separates the container from the host must be its own, or another
//! container's; never the host's.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};
use sysbox_kernel::notify::kind_of;
use sysbox_kernel::ns::LinkNameSpaceType;

use crate::spec::{Error, Hints};

/// A namespace without which there is no container, and how Docker's users ask for the host's.
struct Required {
    kind: Type,
    option: &'static str,
    /// What to do instead.
    instead: &'static str,
}

const REQUIRED: &[Required] = &[
    Required {
        kind: Type::Network,
        option: "--network=host",
        instead: "leave it out and publish ports with -p",
    },
    Required { kind: Type::Pid, option: "--pid=host", instead: "leave it out" },
    Required { kind: Type::Ipc, option: "--ipc=host", instead: "leave it out" },
    Required { kind: Type::Uts, option: "--uts=host", instead: "leave it out" },
    Required { kind: Type::Mount, option: "", instead: "add it to the list" },
];

pub(super) fn check(
    linux: &Linux,
    hints: &Hints,
    is_host: &dyn Fn(Type, &Path) -> bool,
) -> Result<(), Error> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = namespace.typ();
        if namespaces[..index].iter().any(|earlier| earlier.typ() == kind) {
            return Err(Error::field(field, format!("{} is listed twice", name(kind)), ""));
        }
        let Some(path) = namespace.path() else {
            continue;
        };
        if !path.is_absolute() {
            let reason = format!("{path:?} is not an absolute path");
            return Err(Error::field(format!("{field}.path"), reason, ""));
        }
        if is_host(kind, path) {
            return Err(shared_with_host(kind));
        }
        if is_of_another_kind(kind, path) {
            let reason = format!("{} is no {} namespace", path.display(), name(kind));
            return Err(Error::field(format!("{field}.path"), reason, ""));
        }
    }
    for required in REQUIRED {
        if namespaces.iter().all(|namespace| namespace.typ() != required.kind) {
            return Err(shared_with_host(required.kind));
        }
    }
    let offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    if offsets && namespaces.iter().all(|n| n.typ() != Type::Time || n.path().is_some()) {
        let remedy = "add {\"type\": \"time\"} to linux.namespaces";
        return Err(Error::field("linux.timeOffsets", "needs a new time namespace", remedy));
    }
    if hints.host_user_namespace {
        return Err(Error::field(
            "linux.namespaces",
            "docker run --userns=host is not possible: root inside would be root of the host",
            "leave it out; the container gets ids of its own and files still belong to root inside",
        ));
    }
    Ok(())
}

fn shared_with_host(kind: Type) -> Error {
    let name = name(kind);
    let required = REQUIRED.iter().find(|required| required.kind == kind);
    let asked = match required {
        Some(required) if !required.option.is_empty() => {
            format!(", as docker run {} asks,", required.option)
        }
        _ => String::new(),
    };
    Error::field(
        "linux.namespaces",
        format!(
            "using the host's {name} namespace{asked} is not possible for a container whose \
                 root is nobody on the host"
        ),
        required.map_or("leave the path out", |required| required.instead),
    )
}

/// Its name in config.json.
fn name(kind: Type) -> &'static str {
    match kind {
        Type::Mount => "mount",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "network",
        Type::Time => "time",
    }
}

/// Whether `path` is the namespace of this kind that this process is in: that of the host.
///
/// A path that can't be read is not the host's; joining it will say what is wrong with it.
pub fn is_host_namespace(kind: Type, path: &Path) -> bool {
    let own = match kind {
        Type::Mount => "/proc/self/ns/mnt",
        Type::Cgroup => "/proc/self/ns/cgroup",
        Type::Uts => "/proc/self/ns/uts",
        Type::Ipc => "/proc/self/ns/ipc",
        Type::User => "/proc/self/ns/user",
        Type::Pid => "/proc/self/ns/pid",
        Type::Network => "/proc/self/ns/net",
        Type::Time => "/proc/self/ns/time",
    };
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    identity(path).is_some_and(|identity_| Some(identity_) == identity(Path::new(own)))
}

/// Whether `path` is something else than a namespace of this kind. Joining would tell; but of a cgroup
/// namespace nothing but its presence counts, see `plan::Namespaces`.
fn is_of_another_kind(kind: Type, path: &Path) -> bool {
    let flag = match kind {
        Type::Mount => LinkNameSpaceType::Mount,
        Type::Cgroup => LinkNameSpaceType::ControlGroup,
        Type::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        Type::Ipc => LinkNameSpaceType::InterProcessCommunication,
        Type::User => LinkNameSpaceType::User,
        Type::Pid => LinkNameSpaceType::ProcessID,
        Type::Network => LinkNameSpaceType::Network,
        Type::Time => LinkNameSpaceType::Time,
    };
    // A path that can't be opened is told with its reason by who joins it; nobody waits for a FIFO.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = File::options().read(true).custom_flags(flags).open(path);
    opened.is_ok_and(|file| kind_of(&file).ok() != Some(flag as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_must_be_of_its_kind() {
        assert!(!is_of_another_kind(Type::Cgroup, Path::new("/proc/self/ns/cgroup")));
        assert!(!is_of_another_kind(Type::Cgroup, Path::new("/gone")));
        assert!(is_of_another_kind(Type::Cgroup, Path::new("/proc/self/ns/ipc")));
        assert!(is_of_another_kind(Type::Network, Path::new("/dev/null")));
    }

    #[test]
    fn the_hosts_namespaces_are_told_by_identity() {
        assert!(is_host_namespace(Type::Network, Path::new("/proc/thread-self/ns/net")));
        assert!(!is_host_namespace(Type::Network, Path::new("/proc/self/ns/uts")));
        assert!(!is_host_namespace(Type::Network, Path::new("/gone")));
    }
}
