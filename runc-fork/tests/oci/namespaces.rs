//! Namespaces that are made, joined, and refused.

use std::fs;

use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("namespaces::own_ones_differ_from_the_hosts", own),
    ("namespaces::joined_by_path", joined),
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
    assert_ne!(link(second.pid(), "user"), link(pid, "user"));
    assert!(second.exec("grep ' /dev/mqueue ' /proc/mounts").ok().contains("mqueue"));
    second.call(&["kill"], &["KILL"]).ok();
    crate::world::wait_until("the end", || second.state()["status"] == "stopped");
    second.call(&["delete"], &[]).ok();
    assert_eq!(first.state()["status"], "running");
}

fn time(world: &World) {
    let mut bundle = Bundle::new(world, "time", "cat /proc/self/timens_offsets");
    bundle.spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 7337, "nanosecs": 5 } });
    assert!(bundle.run().ok().contains("boottime         7337         5"));
}

fn refused(world: &World) {
    let first = Bundle::sleeping(world, "first-user");
    first.start();
    let mut second = Bundle::sleeping(world, "second-user");
    let path = format!("/proc/{}/ns/user", first.pid());
    let namespaces = second.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "user", "path": path }));
    second.run().fails(1, "joining a user namespace by path");
    for (kind, words) in [("network", "--network=host"), ("pid", "--pid=host")] {
        let mut bundle = Bundle::sleeping(world, kind);
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        bundle.run().fails(1, words);
    }
}
