//! Options of mounts, as the container sees them.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("mounts::tmpcopyup", tmpcopyup),
    ("mounts::a_tmpfs_has_the_mode_of_what_it_covers", tmpfs_mode),
    ("mounts::own_id_mappings", own_mappings),
    ("mounts::propagation", propagation),
    ("mounts::recursive_attributes", recursive),
    ("mounts::masks_and_read_only_paths", masks),
    ("mounts::proc_and_sys_that_are_links", links),
    ("mounts::relative_sources_and_files", relative),
    ("mounts::in_the_order_and_with_the_sources_of_the_spec", order),
    ("mounts::a_missing_working_directory_in_a_read_only_root", working_directory),
    ("mounts::isolate_only_keeps_what_the_spec_says", isolate_only),
];

fn tmpcopyup(world: &World) {
    let mut bundle =
        Bundle::new(world, "copyup", "cat /up/d/f; stat -c '%u %a' /up/d/f; touch /up/n");
    bundle.file("/up/d/f", "text\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(bundle.dir.join("rootfs/up/d/f"), mode).unwrap();
    bundle.mount(json!({ "destination": "/up", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup", "mode=755"] }));
    assert_eq!(bundle.run().ok(), "text\n0 640");
    assert!(!bundle.dir.join("rootfs/up/n").exists());
    bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] =
        json!(["tmpcopyup", "ro"]);
    let done = bundle.run();
    assert!(done.out.starts_with("text") && done.err.contains("Read-only"), "{done:?}");
}

fn tmpfs_mode(world: &World) {
    let mut bundle = Bundle::new(world, "mode", "stat -c %a /there /given /missing");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o710);
    fs::create_dir(bundle.dir.join("rootfs/there")).unwrap();
    fs::set_permissions(bundle.dir.join("rootfs/there"), mode).unwrap();
    for (name, options) in [("there", &["nosuid"][..]), ("given", &["mode=700"]), ("missing", &[])]
    {
        bundle.mount(json!({ "destination": format!("/{name}"), "type": "tmpfs",
            "source": "tmpfs", "options": options }));
    }
    assert_eq!(bundle.run().ok(), "710\n700\n1777");
}

fn own_mappings(world: &World) {
    let mut bundle = Bundle::new(world, "idmap", "stat -c '%u %g' /mapped/f /plain/f");
    let maps = json!([{ "containerID": 0, "hostID": 1_400_000_000_u32, "size": 65536 }]);
    bundle.spec["linux"]["uidMappings"] = maps.clone();
    bundle.spec["linux"]["gidMappings"] = maps;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let source = bundle.bind("mapped", "/mapped", &["bind", "idmap"]);
    fs::write(source.join("f"), "").unwrap();
    chown(source.join("f"), Some(1000), Some(1001)).unwrap();
    let mount = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = json!([{ "containerID": 1000, "hostID": 1_400_000_005_u32, "size": 1 }]);
    mount["gidMappings"] = json!([{ "containerID": 1001, "hostID": 1_400_000_006_u32, "size": 1 }]);
    let plain = bundle.bind("plain", "/plain", &["bind"]);
    fs::write(plain.join("f"), "").unwrap();
    chown(plain.join("f"), Some(1000), Some(1001)).unwrap();
    assert_eq!(
        bundle.run().ok(),
        "5 6\n65534 65534",
        "who maps one mount means the others as they are"
    );
    assert_eq!(fs::metadata(source.join("f")).unwrap().uid(), 1000);
}

fn propagation(world: &World) {
    let mut bundle = Bundle::new(
        world,
        "shared",
        "grep -E ' /(shared|slave|private|unbindable) ' /proc/self/mountinfo",
    );
    for name in ["shared", "slave", "private", "unbindable"] {
        bundle.bind(name, &format!("/{name}"), &["rbind", &format!("r{name}")]);
    }
    let text = bundle.run().ok();
    let line = |name: &str| {
        let line = text.lines().find(|line| line.contains(&format!(" /{name} ")));
        line.unwrap_or_else(|| panic!("{name} is not mounted: {text}")).to_owned()
    };
    assert!(line("shared").contains(" shared:"));
    assert!(!line("slave").contains(" shared:") && !line("private").contains(" shared:"));
    assert!(line("unbindable").contains(" unbindable"));
    let mut bundle =
        Bundle::new(world, "rootshared", "grep -E ' / / |rootfs / ' /proc/self/mountinfo");
    bundle.spec["linux"]["rootfsPropagation"] = json!("shared");
    assert!(bundle.run().ok().contains(" shared:"));
}

fn recursive(world: &World) {
    let mut bundle =
        Bundle::new(world, "rro", "touch /data/sub/x; touch /plain/sub/x && echo plain");
    for (name, options) in [("data", &["rbind", "rro"][..]), ("plain", &["rbind", "ro"])] {
        let source = bundle.bind(name, &format!("/{name}"), options);
        fs::create_dir(source.join("sub")).unwrap();
        let empty = c"";
        rustix::mount::mount(
            "tmpfs",
            source.join("sub"),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            empty,
        )
        .unwrap();
    }
    let done = bundle.run();
    assert!(done.err.contains("/data/sub/x: Read-only") && done.out == "plain\n", "{done:?}");
    for name in ["data", "plain"] {
        rustix::mount::unmount(
            bundle.dir.join(name).join("sub"),
            rustix::mount::UnmountFlags::DETACH,
        )
        .unwrap();
    }
}

fn masks(world: &World) {
    let script =
        "cat /secret; ls /hidden; touch /fixed/x; umount /hidden; umount /secret; cat /secret";
    let mut bundle = Bundle::new(world, "masks", script);
    bundle.file("/secret", "told");
    bundle.file("/hidden/told", "");
    bundle.file("/fixed/f", "");
    bundle.spec["linux"]["maskedPaths"] = json!(["/secret", "/hidden", "/none"]);
    bundle.spec["linux"]["readonlyPaths"] = json!(["/fixed", "/none"]);
    let done = bundle.run();
    assert!(!done.out.contains("told"), "{done:?}");
    assert!(done.err.contains("/fixed/x: Read-only") && done.err.contains("umount"), "{done:?}");
}

fn links(world: &World) {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new(world, &format!("link-{name}"), "true");
        fs::create_dir(bundle.dir.join("rootfs/elsewhere")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", bundle.dir.join("rootfs").join(name)).unwrap();
        bundle.run().fails(1, "must be mounted on ordinary directory");
    }
}

fn relative(world: &World) {
    let mut bundle = Bundle::new(world, "relative", "cat /etc/made/name; touch /etc/made/name");
    fs::write(bundle.dir.join("file"), "of the bundle\n").unwrap();
    bundle.mount(json!({ "destination": "/etc/made/name", "type": "bind", "source": "file",
        "options": ["bind", "ro"] }));
    let done = bundle.run();
    assert!(done.out == "of the bundle\n" && done.err.contains("Read-only"), "{done:?}");
}

fn order(world: &World) {
    let mut bundle = Bundle::new(world, "order", "cat /proc/self/mountinfo");
    bundle.mount(json!({ "destination": "/last", "type": "tmpfs", "source": "named" }));
    let out = bundle.run().ok();
    let shown: Vec<(&str, &str)> = out.lines().map(place_and_source).collect();
    let asked = bundle.spec["mounts"].as_array().unwrap();
    let mut last = 0;
    for mount in asked.iter().filter(|m| m["type"] != "bind" && m["type"] != "cgroup") {
        let wanted = (mount["destination"].as_str().unwrap(), mount["source"].as_str().unwrap());
        let place = shown.iter().position(|found| *found == wanted);
        let place = place.unwrap_or_else(|| panic!("no {wanted:?} in {shown:?}"));
        assert!(place > last, "{wanted:?} comes too early: {shown:?}");
        last = place;
    }
}

/// Mount point and source of a line of mountinfo, proc_pid_mountinfo(5).
fn place_and_source(line: &str) -> (&str, &str) {
    let (before, after) = line.split_once(" - ").unwrap();
    (before.split(' ').nth(4).unwrap(), after.split(' ').nth(1).unwrap())
}

fn working_directory(world: &World) {
    let mut bundle = Bundle::new(world, "cwd", "pwd; stat -c '%u %a' .");
    bundle.spec["root"]["readonly"] = json!(true);
    bundle.spec["process"]["cwd"] = json!("/new/place");
    assert_eq!(bundle.run().ok(), "/new/place\n0 755");
}

fn isolate_only(world: &World) {
    let command = "touch /x; mkdir /sys/fs/cgroup/x; echo 1 > /proc/sys/net/ipv4/ip_forward; \
                   grep CapEff /proc/self/status; mount -t tmpfs t /bin";
    let mut bundle = Bundle::new(world, "isolate", command);
    bundle.spec["root"]["readonly"] = json!(true);
    bundle.spec["annotations"] = json!({ "io.sysbox.system-container": "false" });
    let done = bundle.run();
    for words in
        ["/x: Read-only", "cgroup/x': Read-only", "ip_forward: Read-only", "permission denied"]
    {
        assert!(done.err.contains(words), "{words}: {done:?}");
    }
    // CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE
    assert!(done.out.contains("CapEff:\t0000000020000420"), "{done:?}");
}
