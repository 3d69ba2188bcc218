//! Namespaces that are made, joined, and refused.

use std::fs;

use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("namespaces::own_ones_differ_from_the_hosts", own),
    ("namespaces::joined_by_path", joined),
    ("namespaces::given_ids_and_a_joined_user_namespace", given_ids),
    ("namespaces::the_network_of_another_container", network_of_another),
    ("namespaces::time_offsets", time),
    ("namespaces::the_hosts_are_refused", refused),
];

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

fn link(pid: i64, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn own(world: &World) {
    let bundle = Bundle::sleeping(world, "own");
    bundle.start();
    let (pid, me) = (bundle.pid(), i64::from(std::process::id()));
    for kind in KINDS {
        assert_ne!(link(pid, kind), link(me, kind), "{kind}");
        let inside = bundle.exec(&format!("readlink /proc/self/ns/{kind}")).ok();
        assert_eq!(inside, link(pid, kind), "{kind} of exec");
    }
}

fn joined(world: &World) {
    let first = Bundle::sleeping(world, "first");
    first.start();
    let pid = first.pid();
    let mut second = Bundle::sleeping(world, "second");
    let kinds =
        [("network", "net"), ("uts", "uts"), ("ipc", "ipc"), ("pid", "pid"), ("time", "time")];
    for (kind, file) in kinds {
        let namespaces = second.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        namespaces.push(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    }
    second.spec["hostname"] = json!(null);
    second.start();
    for kind in ["net", "uts", "ipc", "pid", "time"] {
        assert_eq!(link(second.pid(), kind), link(pid, kind), "{kind}");
    }
    assert_eq!(link(second.pid(), "user"), link(pid, "user"));
    assert!(second.exec("grep ' /dev/mqueue ' /proc/mounts").ok().contains("mqueue"));
    second.call(&["kill"], &["KILL"]).ok();
    crate::world::wait_until("the end", || second.state()["status"] == "stopped");
    second.call(&["delete"], &[]).ok();
    assert_eq!(first.state()["status"], "running");
}

fn time(world: &World) {
    let mut bundle = Bundle::new(world, "time", "cat /proc/self/timens_offsets");
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    bundle.spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 7337, "nanosecs": 5 } });
    assert!(bundle.run().ok().contains("boottime         7337         5"));
}

/// As engines give it that know of user namespaces: files that belong to the mapped ids on disk.
fn given_ids(world: &World) {
    let mut first = Bundle::sleeping(world, "given");
    let map = |start: u32| json!([{ "containerID": 0, "hostID": start, "size": 65534 }]);
    let namespaces = first.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user" }));
    first.spec["linux"]["uidMappings"] = map(700_000);
    first.spec["linux"]["gidMappings"] = map(800_000);
    own_all(&first.dir.join("rootfs"), 700_000, 800_000);
    let volume = first.bind("volume", "/volume", &["bind"]);
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    first.start();
    assert_eq!(first.exec("stat -c %u:%g /bin/sh /volume; touch /made").ok(), "0:0\n0:0");
    let made = fs::metadata(first.dir.join("rootfs/made")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((made.uid(), made.gid()), (700_000, 800_000));

    let mut second = Bundle::sleeping(world, "given-second");
    own_all(&second.dir.join("rootfs"), 700_000, 800_000);
    let path = format!("/proc/{}/ns/user", first.pid());
    let namespaces = second.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user", "path": path }));
    // What Podman fills in, as runc wants some.
    let dummy = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    second.spec["linux"]["uidMappings"] = dummy.clone();
    second.spec["linux"]["gidMappings"] = dummy;
    second.start();
    assert_eq!(link(second.pid(), "user"), link(first.pid(), "user"));
    first.call(&["delete", "--force"], &[]).ok();
    // The namespace lives on with the container that is left.
    let map = second.exec("cat /proc/self/uid_map; touch /made").ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "700000", "65534"]);
}

fn own_all(path: &std::path::Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| own_all(&entry.unwrap().path(), uid, gid));
    }
}

/// Docker's `--network=container:...` and Podman's pods name the network only.
fn network_of_another(world: &World) {
    let first = Bundle::sleeping(world, "net-first");
    first.start();
    let mut second = Bundle::sleeping(world, "net-second");
    let path = format!("/proc/{}/ns/net", first.pid());
    let namespaces = second.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "network", "path": path }));
    second.start();
    for kind in ["net", "user"] {
        assert_eq!(link(second.pid(), kind), link(first.pid(), kind), "{kind}");
    }
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        assert_ne!(link(second.pid(), kind), link(first.pid(), kind), "{kind}");
    }
    // Rights over the network.
    second.exec("echo 7 > /proc/sys/net/ipv4/ip_default_ttl").ok();
    assert_eq!(first.exec("cat /proc/sys/net/ipv4/ip_default_ttl").ok(), "7");
}

fn refused(world: &World) {
    for (kind, words) in [("network", "--network=host"), ("pid", "--pid=host")] {
        let mut bundle = Bundle::sleeping(world, kind);
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        bundle.run().fails(1, words);
    }
}
