//! The conversion as a whole, on Docker's spec.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxNamespaceType};
use serde_json::{Value, json};

use super::*;
use crate::spec::fixtures::docker;
use crate::spec::{Engine, InitSystem};

/// What a kernel has, for these tests.
fn all_capabilities() -> Capabilities {
    HashSet::from([Capability::Chown, Capability::SysAdmin, Capability::NetRaw])
}

fn converted_with(
    options: &Options,
    init_system: Option<InitSystem>,
    change: impl FnOnce(&mut Value),
) -> (Spec, Vec<String>) {
    let hints = Hints { engine: Engine::Docker, init_system, ..Hints::default() };
    let capabilities = all_capabilities();
    let context = Context { options, hints: &hints, capabilities: &capabilities, gid_count: 65536 };
    convert(docker(change), &context)
}

fn converted(change: impl FnOnce(&mut Value)) -> Spec {
    converted_with(&Options::default(), None, change).0
}

fn with_systemd(change: impl FnOnce(&mut Value)) -> Spec {
    converted_with(&Options::default(), Some(InitSystem::Systemd), change).0
}

/// Mounts as `destination type options`.
fn mounts(spec: &Spec) -> Vec<String> {
    let line = |mount: &oci_spec::runtime::Mount| {
        let options = mount.options().clone().unwrap_or_default().join(",");
        let kind = mount.typ().as_deref().unwrap_or_default();
        format!("{} {kind} {options}", mount.destination().display())
    };
    spec.mounts().iter().flatten().map(line).collect()
}

fn destinations(spec: &Spec) -> Vec<String> {
    let lines = mounts(spec);
    lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

fn add_mount(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn namespaces_are_completed_and_paths_kept() {
    let spec = converted(|spec| {
        let namespaces = &mut spec["linux"]["namespaces"];
        namespaces[1] = json!({"type": "network", "path": "/run/netns/pod"});
        namespaces.as_array_mut().unwrap().push(json!({"type": "user", "path": "/run/userns"}));
    });
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    let found = |kind| namespaces.iter().filter(|n| n.typ() == kind).collect::<Vec<_>>();
    for kind in [LinuxNamespaceType::User, LinuxNamespaceType::Cgroup, LinuxNamespaceType::Time] {
        assert_eq!(found(kind).len(), 1, "{kind}");
    }
    assert!(found(LinuxNamespaceType::User)[0].path().is_some());
    assert!(found(LinuxNamespaceType::Network)[0].path().is_some());
    assert!(found(LinuxNamespaceType::Time)[0].path().is_none());
}

#[test]
fn the_base_comes_first_and_is_writable() {
    let spec = converted(|_| {});
    assert_eq!(
        mounts(&spec)[..7],
        [
            "/proc proc nosuid,noexec,nodev",
            "/dev tmpfs nosuid,strictatime,mode=755,size=65536k",
            "/dev/pts devpts nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
            "/dev/shm tmpfs nosuid,noexec,nodev,mode=1777,size=67108864",
            "/dev/mqueue mqueue nosuid,noexec,nodev",
            "/sys sysfs nosuid,noexec,nodev",
            "/sys/fs/cgroup cgroup2 nosuid,noexec,nodev",
        ]
    );
    assert_eq!(destinations(&spec)[7..], ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"]);
    let empty = converted(|spec| spec["mounts"] = json!([]));
    assert_eq!(destinations(&empty).len(), 7);
}

#[test]
fn mounts_of_the_user_keep_their_order_and_options() {
    let bind = |destination: &str| json!({"destination": destination, "type": "bind", "source": "/srv", "options": ["rbind", "ro"]});
    let spec = converted(|spec| {
        for destination in ["/b", "/a", "/dev/shm", "/a/c"] {
            add_mount(spec, bind(destination));
        }
    });
    let lines = mounts(&spec);
    assert_eq!(destinations(&spec)[9..], ["/b", "/a", "/dev/shm", "/a/c"]);
    assert_eq!(lines[9], "/b bind rbind,ro");
    assert!(!lines.iter().any(|line| line.starts_with("/dev/shm tmpfs")));
}

#[test]
fn the_hosts_own_trees_are_not_mounted() {
    let (spec, warnings) = converted_with(&Options::default(), None, |spec| {
        for path in ["/sys/fs/cgroup", "/proc", "/sys/fs/cgroup/systemd"] {
            let options = ["rbind", "rw"];
            add_mount(
                spec,
                json!({"destination": path, "type": "bind", "source": path, "options": options}),
            );
        }
    });
    let lines = mounts(&spec);
    assert!(lines.contains(&"/sys/fs/cgroup cgroup2 nosuid,noexec,nodev".to_owned()));
    assert!(lines.contains(&"/proc proc nosuid,noexec,nodev".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("rbind,rw")));
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn systemd_gets_what_its_container_interface_asks() {
    let spec = with_systemd(|_| {});
    assert_eq!(destinations(&spec)[7..10], ["/run", "/run/lock", "/tmp"]);
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    assert!(env.contains(&"container=docker".to_owned()));
    assert_eq!(spec.annotations().as_ref().unwrap()["io.sysbox.init-system"], "systemd");

    let volume = |destination: &str| {
        json!({"destination": destination, "type": "bind",
        "source": "/srv", "options": ["bind"]})
    };
    let own = with_systemd(|spec| {
        for destination in ["/run", "/tmp/.X11-unix", "/run/secrets"] {
            add_mount(spec, volume(destination));
        }
        spec["process"]["env"] = json!(["container=oci"]);
    });
    let order = destinations(&own);
    assert!(order[7] == "/tmp" && !order[..8].contains(&"/run".to_owned()), "{order:?}");
    assert!(!order.contains(&"/run/lock".to_owned()));
    let env = own.process().as_ref().unwrap().env().clone().unwrap();
    assert_eq!(env, ["container=oci"]);

    let other = converted_with(&Options::default(), Some(InitSystem::S6), |_| {}).0;
    assert!(!destinations(&other).contains(&"/run".to_owned()));
    assert!(!destinations(&converted(|_| {})).contains(&"/run".to_owned()));
}

#[test]
fn root_gets_all_capabilities_and_others_none() {
    let all = all_capabilities();
    let none = HashSet::new();
    let sets = |spec: &Spec| {
        let capabilities = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        [
            capabilities.bounding().clone().unwrap_or_default(),
            capabilities.effective().clone().unwrap_or_default(),
            capabilities.permitted().clone().unwrap_or_default(),
            capabilities.inheritable().clone().unwrap_or_default(),
            capabilities.ambient().clone().unwrap_or_default(),
        ]
    };
    let root = sets(&converted(|_| {}));
    assert_eq!(root, [&all, &all, &all, &none, &none].map(Clone::clone));
    let user = sets(&converted(|spec| spec["process"]["user"]["uid"] = json!(1000)));
    assert_eq!(user, [&all, &none, &none, &none, &none].map(Clone::clone));
    // The spec's, as far as the kernel has them.
    let honored = Options { honor_capabilities: Some(true), ..Options::default() };
    let (spec, _) = converted_with(&honored, None, |_| {});
    let of_spec = HashSet::from([Capability::Chown, Capability::NetRaw]);
    assert_eq!(sets(&spec)[..3], [&of_spec, &of_spec, &of_spec].map(Clone::clone));
}

#[test]
fn only_what_breaks_an_inner_system_is_unmasked() {
    let spec = converted(|spec| {
        spec["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/etc/secret"));
        spec["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/proc/sys/vm"));
    });
    let linux = spec.linux().as_ref().unwrap();
    let masked = linux.masked_paths().clone().unwrap();
    // Docker's ten, the user's, and the lists of the host's disks.
    assert_eq!(masked.len(), 13);
    assert!(masked.contains(&"/etc/secret".to_owned()));
    assert_eq!(
        linux.readonly_paths().clone().unwrap(),
        ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys/vm"]
    );
}

#[test]
fn devices_are_added_with_their_rules() {
    let spec = converted(|_| {});
    let linux = spec.linux().as_ref().unwrap();
    let devices = linux.devices().clone().unwrap();
    let paths: Vec<_> = devices.iter().map(|d| d.path().display().to_string()).collect();
    assert_eq!(paths, ["/dev/kmsg", "/dev/fuse", "/dev/net/tun"]);
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    // Docker's own list ends with a rule against fuse.
    let last = rules.iter().rposition(|rule| rule.minor() == Some(229)).unwrap();
    assert!(rules[last].allow());

    let own = converted(|spec| {
        spec["linux"]["devices"] =
            json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 384}]);
        add_mount(
            spec,
            json!({"destination": "/dev/kmsg", "type": "bind", "source": "/dev/null",
            "options": ["bind"]}),
        );
    });
    let devices = own.linux().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(devices.len(), 2);
    assert_eq!(devices[0].file_mode(), Some(0o600));
}

#[test]
fn the_kernels_log_is_the_null_device() {
    let with = |rules: Value| {
        converted(|spec| {
            spec["linux"]["devices"] = json!([
                {"path": "/dev/log/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 384},
                {"path": "/dev/disk", "type": "b", "major": 1, "minor": 11}
            ]);
            spec["linux"]["resources"]["devices"] = rules;
        })
    };
    let log = with(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"},
        {"allow": false, "type": "b", "access": "rw"}
    ]));
    let linux = log.linux().as_ref().unwrap();
    let devices = linux.devices().clone().unwrap();
    assert_eq!((devices[0].minor(), devices[0].file_mode()), (3, Some(0o600)));
    assert_eq!(devices[1].minor(), 11);
    assert!(devices.iter().any(|device| device.path().ends_with("dev/kmsg")));
    let denied = with(json!([{"allow": false, "access": "rwm"}]));
    let devices = denied.linux().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(devices[0].minor(), 11, "who denies it is to be denied");
}

#[test]
fn group_ranges_are_cut_to_the_groups_that_exist() {
    let rows = [
        ("0 2147483647", "0 65535"),
        ("0\t100", "0 100"),
        ("70000 80000", "1 0"),
        ("1 0", "1 0"),
        ("x", "x"),
    ];
    for (range, expected) in rows {
        let spec = converted(|spec| {
            spec["linux"]["sysctl"]["net.ipv4.ping_group_range"] = json!(range);
        });
        let sysctl = spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
        assert_eq!(sysctl["net.ipv4.ping_group_range"], expected);
        assert_eq!(sysctl["net.ipv4.ip_unprivileged_port_start"], "0");
    }
}

#[test]
fn profiles_of_the_engine_go_and_those_of_the_user_stay() {
    let profile = |name: &str| {
        let spec = converted(|spec| spec["process"]["apparmorProfile"] = json!(name));
        spec.process().as_ref().unwrap().apparmor_profile().clone()
    };
    assert_eq!(profile("docker-default"), None);
    assert_eq!(profile("containers-default-0.50.1"), None);
    assert_eq!(profile("my-profile").as_deref(), Some("my-profile"));
}

#[test]
fn keep_my_spec_only_isolates() {
    let isolate = Options { system_container: false, ..Options::default() };
    let (spec, warnings) = converted_with(&isolate, Some(InitSystem::Systemd), |spec| {
        spec["process"]["apparmorProfile"] = json!("docker-default");
        spec["process"]["env"] = json!(["SYSBOX_SYSCONT_MODE=FALSE", "A=b"]);
    });
    assert!(warnings.is_empty());
    let original = docker(|_| {});
    assert_eq!(spec.mounts(), original.mounts());
    let (linux, original_linux) = (spec.linux().as_ref(), original.linux().as_ref());
    let (linux, original_linux) = (linux.unwrap(), original_linux.unwrap());
    assert_eq!(linux.masked_paths(), original_linux.masked_paths());
    assert_eq!(linux.readonly_paths(), original_linux.readonly_paths());
    assert_eq!(linux.devices(), original_linux.devices());
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
    assert_eq!(linux.sysctl().as_ref().unwrap()["net.ipv4.ping_group_range"], "0 65535");
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.apparmor_profile().as_deref(), Some("docker-default"));
    assert_eq!(process.env().as_ref().unwrap(), &["A=b"]);
}

#[test]
fn the_converted_spec_remembers_the_wishes() {
    let wished = Options { honor_capabilities: Some(true), ..Options::default() };
    let (spec, _) = converted_with(&wished, Some(InitSystem::Systemd), |_| {});
    let remembered = Options::of(&spec).unwrap();
    assert!(remembered.honor_capabilities == Some(true) && remembered.system_container);
    // Engines read annotations back from `state`: what was there stays.
    let spec = converted(|spec| spec["annotations"] = json!({"org.example": "x"}));
    assert_eq!(spec.annotations().as_ref().unwrap()["org.example"], "x");
}

#[test]
fn what_is_not_ours_stays() {
    let spec = converted(|spec| {
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["process"]["selinuxLabel"] = json!("a:b:c");
        spec["process"]["oomScoreAdj"] = json!(-500);
        spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}]);
        spec["linux"]["resources"]["pids"] = json!({"limit": 7});
    });
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.no_new_privileges(), Some(true));
    assert_eq!(process.selinux_label().as_deref(), Some("a:b:c"));
    assert_eq!(process.oom_score_adj(), Some(-500));
    assert_eq!(process.rlimits().as_ref().unwrap().len(), 1);
    let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.pids().as_ref().unwrap().limit(), 7);
}

#[test]
fn capabilities_that_a_user_chose_stay() {
    let chosen = |engine, capabilities: Value| {
        let hints = Hints { engine, ..Hints::default() };
        let all = all_capabilities();
        let options = Options::default();
        let context =
            Context { options: &options, hints: &hints, capabilities: &all, gid_count: 65536 };
        let spec = docker(|spec| spec["process"]["capabilities"] = capabilities);
        let (spec, _) = convert(spec, &context);
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let kept = sets.effective().clone().unwrap_or_default() != all;
        assert_eq!(Options::of(&spec).unwrap().honor_capabilities, Some(kept));
        kept
    };
    let same = |list: &[&str]| json!({ "bounding": list, "effective": list, "permitted": list });
    let example = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let own = same(&["CAP_CHOWN"]);
    assert!(chosen(Engine::Unknown, own.clone()));
    assert!(chosen(Engine::Unknown, json!({})), "none at all is a choice, too");
    for engine in [Engine::Docker, Engine::Podman, Engine::Containerd, Engine::CriO] {
        assert!(!chosen(engine, own.clone()), "{engine:?}");
    }
    // What tools write without being asked, and engines that left no mark.
    assert!(!chosen(Engine::Unknown, Value::Null));
    assert!(!chosen(Engine::Unknown, same(&example)));
    let mut old_example = same(&example);
    old_example["ambient"] = json!(example);
    assert!(!chosen(Engine::Unknown, old_example));
    let dockers = docker(|_| {}).process().as_ref().unwrap().capabilities().clone();
    let mut dockers = json!(dockers.unwrap());
    assert!(!chosen(Engine::Unknown, dockers.clone()));
    dockers["ambient"] = dockers["bounding"].clone();
    assert!(!chosen(Engine::Unknown, dockers), "Buildah fills the ambient set, too");
}
