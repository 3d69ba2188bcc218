//! Bind mounts with ID mappings of their own, as runc's suite has them, and what a spec with a user
//! namespace says of mounts besides.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("idmap::without_a_user_namespace_ids_are_those_inside", inside),
    ("idmap::what_is_mounted_below_has_the_containers_mapping", below),
    ("idmap::the_containers_own_tree_is_mapped_anew", own_tree),
    ("idmap::who_maps_one_mount_means_the_others_as_they_are", others),
    ("idmap::options_of_the_source_that_a_user_namespace_locks", locks),
];

fn map(disk: u32, target: u32, size: u32) -> Value {
    json!([{ "containerID": disk, "hostID": target, "size": size }])
}

/// Adds a mount of a new directory with a file `f`, which belongs to this user and group.
fn mapped(bundle: &mut Bundle<'_>, name: &str, (uid, gid): (u32, u32), uids: Value, gids: Value) {
    let source = bundle.bind(name, &format!("/mnt/{name}"), &["rbind"]);
    fs::write(source.join("f"), "").unwrap();
    chown(source.join("f"), Some(uid), Some(gid)).unwrap();
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = uids;
    mount["gidMappings"] = gids;
}

/// Gives the spec a user namespace with ids from 700000 on.
fn add_user_namespace(bundle: &mut Bundle<'_>) {
    let linux = &mut bundle.spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    linux["uidMappings"] = map(0, 700_000, 65536);
    linux["gidMappings"] = linux["uidMappings"].clone();
}

fn inside(world: &World) {
    let mut bundle = Bundle::new(world, "idsinside", "stat -c %u:%g /mnt/*/f; touch /mnt/near/g");
    mapped(&mut bundle, "near", (5, 7), map(0, 1000, 10), map(0, 2000, 10));
    // Beyond the usual number of ids.
    mapped(&mut bundle, "off", (0, 0), map(0, 100_000, 65536), map(0, 100_000, 65536));
    let done = bundle.run();
    assert_eq!(done.out.trim_end(), "1005:2007\n100000:100000");
    assert!(done.err.contains("Value too large"), "root has no id there: {done:?}");
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = map(0, 2_000_000_000, 1);
    bundle.run().fails(1, "lead to no id that the container has");
}

fn below(world: &World) {
    let mut bundle = Bundle::new(world, "idsbelow", "stat -c %u /mnt/top/f /mnt/top/below/f");
    mapped(&mut bundle, "top", (3, 3), map(0, 1000, 10), map(0, 1000, 10));
    let (place, other) = (bundle.dir.join("top/below"), bundle.dir.join("other"));
    for dir in [&place, &other] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(other.join("f"), "").unwrap();
    chown(other.join("f"), Some(9), Some(9)).unwrap();
    mount_bind(&other, &place).unwrap();
    assert_eq!(bundle.run().ok(), "1003\n9");
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["options"] = json!(["rbind", "ridmap"]);
    assert_eq!(bundle.run().ok(), "1003\n1009");
    unmount(&place, UnmountFlags::DETACH).unwrap();
}

fn own_tree(world: &World) {
    let mut bundle = Bundle::new(world, "idstree", "stat -c %u /a/f /final/f /final/b/f");
    let rootfs = bundle.path("rootfs");
    let a = bundle.bind("a", "/a", &["bind"]);
    fs::create_dir(a.join("b")).unwrap();
    let b = bundle.bind("b", "/a/b", &["bind"]);
    for dir in [&a, &b] {
        fs::write(dir.join("f"), "").unwrap();
    }
    bundle.mount(json!({
        "destination": "/final", "type": "bind", "source": format!("{rootfs}/a"), "options": ["rbind"],
        "uidMappings": map(0, 1000, 10), "gidMappings": map(0, 1000, 10)
    }));
    let done = bundle.run();
    if done.err.contains("function not implemented") || done.err.contains("ID-map the source") {
        println!("skipped: this kernel maps a mount once (before 6.15)");
        return;
    }
    assert_eq!(done.ok(), "0\n1000\n0");
}

fn others(world: &World) {
    let mut bundle = Bundle::new(world, "idsothers", "stat -c %u /plain/f /mnt/own/f");
    add_user_namespace(&mut bundle);
    let plain = bundle.bind("plain", "/plain", &["bind"]);
    fs::write(plain.join("f"), "").unwrap();
    mapped(&mut bundle, "own", (0, 0), map(0, 700_000, 10), map(0, 700_000, 10));
    assert_eq!(bundle.run().ok(), "65534\n0");
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount.as_object_mut().unwrap().retain(|field, _| !field.ends_with("Mappings"));
    assert_eq!(bundle.run().ok(), "0\n0", "nobody said a word of mappings");
}

fn locks(world: &World) {
    let options = "awk '$2 == \"/mnt\" { print $4 }' /proc/self/mounts";
    let mut bundle = Bundle::new(world, "idslocks", options);
    let source = bundle.bind("source", "/mnt", &["bind", "rw"]);
    let mount = |arguments: &[&str], source: &Path| {
        let done = Command::new("mount").args(arguments).arg(source).status().unwrap();
        assert!(done.success(), "mount {arguments:?}");
    };
    mount(&["-t", "tmpfs", "tmpfs"], &source);
    mount(&["--bind", "-o", "remount,ro,relatime"], &source);
    assert!(bundle.run().ok().starts_with("rw,"), "without a user namespace it is taken off");
    add_user_namespace(&mut bundle);
    bundle.run().fails(1, "run failed: unable to start container process: error during container init: error mounting");
    bundle.run().fails(1, "to rootfs at \\\"/mnt\\\": operation not permitted: the source is mounted with ro,relatime");
    bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] =
        json!(["bind", "nosuid"]);
    assert!(bundle.run().ok().starts_with("ro,nosuid"));
    unmount(&source, UnmountFlags::DETACH).unwrap();
}
