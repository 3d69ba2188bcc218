//! Refusing what a container can't have, before anything is done for it.
//!
//! Every refusal names the field and says what to do instead, in the words of the engine's command
//! line where the engine is Docker.

mod mappings;
mod mounts;
mod namespaces;
mod process;
mod rdt;
mod sysctl;
mod unsupported;

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

pub use namespaces::is_host_namespace;

use super::{Error, Hints};

/// Checks the spec as the engine wrote it.
///
/// `is_host` tells whether a path names the namespace of this kind that the host itself is in; see
/// [`is_host_namespace`].
///
/// # Errors
///
/// The first thing that can't be.
pub fn validate(
    spec: &Spec,
    hints: &Hints,
    is_host: &dyn Fn(LinuxNamespaceType, &Path) -> bool,
) -> Result<(), Error> {
    process::check(spec)?;
    check_hostname("hostname", spec.hostname().as_deref())?;
    check_hostname("domainname", spec.domainname().as_deref())?;
    let linux = spec.linux().as_ref().ok_or_else(|| {
        Error::field("linux", "is missing", "it must at least list the namespaces")
    })?;
    namespaces::check(linux, hints, is_host)?;
    if hints.privileged {
        return Err(Error::field(
            "linux.resources.devices",
            "a privileged container is not possible: it would hold the host's devices",
            "leave --privileged out; root of a system container may already mount, run \
             containers and change its network, and single devices can be given with --device",
        ));
    }
    mappings::check(linux)?;
    mounts::check(spec, linux)?;
    rdt::check(linux)?;
    sysctl::check(linux)?;
    unsupported::check(spec, linux)
}

/// gethostname(2): at most 64 bytes.
fn check_hostname(field: &str, name: Option<&str>) -> Result<(), Error> {
    const MAX: usize = 64;
    match name {
        Some(name) if name.len() > MAX => {
            let reason = format!("{name:?} has {} bytes, the kernel takes {MAX}", name.len());
            Err(Error::field(field, reason, "give a shorter one"))
        }
        Some(name) if name.contains(['/', '\0']) || name.chars().any(char::is_whitespace) => {
            Err(Error::field(field, format!("{name:?} is not a host name"), ""))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::spec::fixtures::docker;

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let is_host = |_: LinuxNamespaceType, path: &Path| path.starts_with("/proc/1/ns");
        match validate(&docker(change), &Hints::default(), &is_host) {
            Ok(()) => "accepted".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    fn remove_namespace(spec: &mut Value, kind: &str) {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
    }

    fn set_namespace(spec: &mut Value, kind: &str, path: &str) {
        remove_namespace(spec, kind);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": kind, "path": path}));
    }

    #[test]
    fn dockers_default_is_accepted() {
        assert_eq!(refusal(|_| {}), "accepted");
        assert_eq!(refusal(|s| set_namespace(s, "network", "/run/netns/pod")), "accepted");
        assert_eq!(refusal(|s| s["linux"]["intelRdt"] = json!({"closID": "/"})), "accepted");
        assert_eq!(
            refusal(|s| s["linux"]["sysctl"]["net.core.somaxconn"] = "1".into()),
            "accepted"
        );
    }

    #[test]
    fn sharing_the_hosts_namespaces_is_refused() {
        for (kind, option) in [
            ("network", "--network=host"),
            ("pid", "--pid=host"),
            ("ipc", "--ipc=host"),
            ("uts", "--uts=host"),
            ("mount", ""),
        ] {
            let message = refusal(|spec| remove_namespace(spec, kind));
            assert!(message.starts_with("linux.namespaces: "), "{message}");
            assert!(message.contains(kind) && message.contains(option), "{message}");
            let message = refusal(|spec| set_namespace(spec, kind, "/proc/1/ns/x"));
            assert!(message.contains("the host's"), "{message}");
        }
        let message = refusal(|spec| set_namespace(spec, "user", "/proc/1/ns/user"));
        assert!(message.contains("the host's"), "{message}");
        let hints = Hints { host_user_namespace: true, ..Hints::default() };
        let message = validate(&docker(|_| {}), &hints, &|_, _| false).unwrap_err().to_string();
        assert!(message.contains("--userns=host"), "{message}");
    }

    #[test]
    fn a_privileged_container_is_refused() {
        let hints = Hints { privileged: true, ..Hints::default() };
        let message = validate(&docker(|_| {}), &hints, &|_, _| false).unwrap_err().to_string();
        assert!(message.contains("leave --privileged out"), "{message}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        type Change = fn(&mut Value);
        let rows: [(Change, &str); 39] = [
            (
                |s| s["linux"]["intelRdt"] = json!({"closID": "a/b"}),
                "linux.intelRdt.closID: \"a/b\"",
            ),
            (|s| s["linux"]["intelRdt"] = json!({"closID": "info"}), "linux.intelRdt.closID: "),
            (|s| s["linux"]["intelRdt"] = json!({"closID": ".."}), "linux.intelRdt.closID: "),
            (
                |s| s["linux"]["intelRdt"] = json!({"memBwSchema": "L3:0=f"}),
                "linux.intelRdt.memBwSchema: \"L3:0=f\"",
            ),
            (
                |s| s["linux"]["intelRdt"] = json!({"schemata": ["L3:0=f", "MB:0=1\nL3:0=1"]}),
                "linux.intelRdt.schemata[1]: ",
            ),
            (|s| s["linux"]["netDevices"] = json!({"eth/9": {}}), "linux.netDevices: "),
            (|s| s["process"] = Value::Null, "process: is missing"),
            (|s| s["process"]["args"] = json!([]), "process.args: is empty"),
            (|s| s["process"]["args"] = json!([""]), "process.args[0]: is empty"),
            (|s| s["process"]["args"] = json!(["a\0b"]), "process.args[0]: "),
            (|s| s["process"]["env"] = json!(["A\0=b"]), "process.env[0]: "),
            (|s| s["process"]["cwd"] = json!("tmp"), "process.cwd: \"tmp\" is not absolute"),
            (|s| s["process"]["oomScoreAdj"] = json!(1001), "process.oomScoreAdj: 1001"),
            (
                |s| {
                    let one = json!({"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1});
                    s["process"]["rlimits"] = json!([one, one]);
                },
                "process.rlimits[1]: RLIMIT_NOFILE is given twice",
            ),
            (
                |s| {
                    s["process"]["rlimits"] =
                        json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]);
                },
                "process.rlimits[0]: the soft limit 2 of RLIMIT_NOFILE is above the hard limit 1",
            ),
            (|s| s["hostname"] = json!("a".repeat(65)), "hostname: "),
            (|s| s["hostname"] = json!("a/b"), "hostname: \"a/b\" is not a host name"),
            (|s| s["domainname"] = json!("a b"), "domainname: "),
            (|s| s["linux"] = Value::Null, "linux: is missing"),
            (
                |s| {
                    let namespaces = s["linux"]["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({"type": "uts"}));
                },
                "linux.namespaces[5]: uts is listed twice",
            ),
            (|s| set_namespace(s, "network", "netns"), "linux.namespaces[4].path: \"netns\""),
            (
                |s| s["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]),
                "linux.gidMappings: is missing",
            ),
            (|s| map(s, json!([[0, 0, 65536]])), "linux.uidMappings[0]: maps the host's root"),
            (|s| map(s, json!([[0, 1000, 0]])), "linux.uidMappings[0]: has size 0"),
            (|s| map(s, json!([[1, 1000, 10]])), "linux.uidMappings: maps no root"),
            (
                |s| map(s, json!([[0, 1000, 10], [5, 3000, 10]])),
                "linux.uidMappings[1]: overlaps linux.uidMappings[0] inside",
            ),
            (
                |s| map(s, json!([[0, 1000, 10], [10, 1005, 10]])),
                "linux.uidMappings[1]: overlaps linux.uidMappings[0] on the host",
            ),
            (
                |s| map(s, json!([[0, 4_294_967_290_u32, 10]])),
                "linux.uidMappings[0]: ends above the largest id",
            ),
            (
                |s| s["mounts"][1]["destination"] = json!("data"),
                "mounts[1].destination: \"data\" is not an absolute path",
            ),
            (
                |s| s["mounts"][1]["destination"] = json!("/a/../../etc"),
                "mounts[1].destination: \"/a/../../etc\" holds \"..\"",
            ),
            (|s| s["mounts"][7]["source"] = Value::Null, "mounts[7].source: is missing"),
            (|s| s["mounts"][0] = json!({"destination": "/x"}), "mounts[0].type: is missing"),
            (
                |s| s["linux"]["rootfsPropagation"] = json!("most"),
                "linux.rootfsPropagation: \"most\"",
            ),
            (|s| s["linux"]["maskedPaths"] = json!(["proc"]), "linux.maskedPaths[0]: \"proc\""),
            (|s| s["linux"]["readonlyPaths"] = json!(["a"]), "linux.readonlyPaths[0]: \"a\""),
            (
                |s| s["linux"]["sysctl"] = json!({"vm.swappiness": "1"}),
                "linux.sysctl: vm.swappiness belongs to the whole host",
            ),
            (
                |s| s["linux"]["sysctl"] = json!({"net.../../vm.swappiness": "1"}),
                "linux.sysctl: \"net.../../vm.swappiness\" is not a name",
            ),
            (
                |s| s["linux"]["sysctl"] = json!({"kernel.hostname": "x"}),
                "linux.sysctl: kernel.hostname",
            ),
            (
                |s| {
                    s["linux"]["devices"] =
                        json!([{"path": "x", "type": "c", "major": 1, "minor": 3}])
                },
                "linux.devices[0].path: \"x\"",
            ),
        ];
        for (change, expected) in rows {
            let message = refusal(change);
            assert!(message.starts_with(expected), "expected {expected}, got {message}");
        }
    }

    /// Sets both mappings to `[container, host, size]` entries.
    fn map(spec: &mut Value, entries: Value) {
        let entries: Vec<Value> = entries
            .as_array()
            .unwrap()
            .iter()
            .map(|e| json!({"containerID": e[0], "hostID": e[1], "size": e[2]}))
            .collect();
        spec["linux"]["uidMappings"] = json!(entries);
        spec["linux"]["gidMappings"] = json!(entries);
    }

    #[test]
    fn several_mappings_are_accepted() {
        assert_eq!(refusal(|s| map(s, json!([[0, 1000, 1], [1, 100_000, 65535]]))), "accepted");
    }
}
