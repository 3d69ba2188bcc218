//! What runc's own suite (`scripts/conformance runc`) found here once.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::{World, wait_until};

pub const CASES: &[Case] = &[
    ("suite::destinations_behind_dangling_links", dangling),
    ("suite::one_attribute_decides_all_of_a_bind_mount", attributes),
    ("suite::a_bind_mount_of_the_containers_own_tree", own_tree),
    ("suite::relative_destinations", relative),
    ("suite::what_is_mounted_below_is_mapped_by_ridmap_only", below),
    ("suite::start_container_hooks_have_the_environment", hook_environment),
    ("suite::lines_of_a_terminal_end_as_they_were_written", line_ends),
    ("suite::a_created_container_ends_at_sigterm", sigterm),
    ("suite::capabilities_that_were_chosen_stay", chosen),
    ("suite::the_kernels_log_is_the_null_device", kernel_log),
    ("suite::capabilities_count_for_the_programs_own_file", executable),
];

fn dangling(world: &World) {
    let mut bundle = Bundle::new(world, "dangling", "cat /etc/hosts /tmp/new/dir/hosts");
    fs::create_dir_all(bundle.dir.join("rootfs/etc")).unwrap();
    symlink("/tmp/new", bundle.dir.join("rootfs/jump")).unwrap();
    symlink("../jump/dir/hosts", bundle.dir.join("rootfs/etc/hosts")).unwrap();
    fs::write(bundle.dir.join("hosts"), "names\n").unwrap();
    bundle.mount(json!({ "destination": "/etc/hosts", "source": "hosts", "options": ["bind"] }));
    assert_eq!(bundle.run().ok(), "names\nnames");
}

fn attributes(world: &World) {
    let options = "awk '$2 == \"/mnt\" { print $4 }' /proc/self/mounts";
    let mut bundle = Bundle::new(world, "attributes", options);
    let source = bundle.bind("source", "/mnt", &[]);
    let source = source.to_str().unwrap();
    let mount = |arguments: &[&str]| {
        let done = std::process::Command::new("mount").args(arguments).status().unwrap();
        assert!(done.success(), "mount {arguments:?}");
    };
    mount(&["-t", "tmpfs", "tmpfs", source]);
    mount(&["--bind", "-o", "remount,nosuid,nodev,noatime", source]);
    let mut seen = |words: &[&str]| {
        let last = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        last["options"] = json!(words);
        let words = bundle.run().ok();
        words.split(',').map(str::to_owned).filter(|w| !w.contains("idmapped")).collect::<Vec<_>>()
    };
    assert_eq!(seen(&["bind"]), ["rw", "nosuid", "nodev", "noatime"]);
    assert_eq!(seen(&["bind", "ro"]), ["ro", "noatime"]);
    assert_eq!(seen(&["bind", "atime"]), ["rw", "noatime"]);
    assert_eq!(seen(&["bind", "relatime", "noexec"]), ["rw", "noexec", "relatime"]);
    mount(&["--bind", "-o", "remount,bind,rw", source]);
    rustix::mount::unmount(source, rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn own_tree(world: &World) {
    let mut bundle = Bundle::new(world, "owntree", "cat /final/below/f");
    let rootfs = bundle.path("rootfs");
    fs::create_dir_all(bundle.dir.join("rootfs/mnt")).unwrap();
    let upper = bundle.bind("upper", "/mnt", &["bind"]);
    fs::create_dir(upper.join("below")).unwrap();
    let lower = bundle.bind("lower", "/mnt/below", &["bind"]);
    fs::write(lower.join("f"), "text").unwrap();
    bundle.mount(json!({ "destination": format!("{rootfs}/final"), "type": "bind",
        "source": format!("{rootfs}/mnt"), "options": ["rbind"] }));
    assert_eq!(bundle.run().ok(), "text");
}

fn relative(world: &World) {
    let mut bundle = Bundle::new(world, "reldest", "cat /tmp/a/f");
    let source = bundle.bind("source", "tmp/a", &["bind"]);
    fs::write(source.join("f"), "text").unwrap();
    let done = bundle.run();
    assert_eq!(done.out, "text");
    assert!(done.err.contains("mounts[7].destination: \\\"tmp/a\\\" is relative"), "{done:?}");
}

fn below(world: &World) {
    let mut bundle = Bundle::new(world, "ridmap", "stat -c %u /mnt/f /mnt/below/f");
    let source = bundle.bind("source", "/mnt", &[]);
    let below = bundle.dir.join("below");
    for dir in [&source, &source.join("below"), &below] {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("f"), "").unwrap();
    }
    rustix::mount::mount_bind(&below, source.join("below")).unwrap();
    let mut seen = |words: &[&str]| {
        let last = bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        last["options"] = json!(words);
        bundle.run().ok()
    };
    assert_eq!(seen(&["rbind", "ridmap"]), "0\n0");
    assert_eq!(seen(&["rbind", "idmap"]), "0\n65534");
    rustix::mount::unmount(source.join("below"), rustix::mount::UnmountFlags::DETACH).unwrap();
}

fn hook_environment(world: &World) {
    let mut bundle = Bundle::new(world, "hookenv", "cat /seen");
    bundle.spec["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
    let hook =
        |env| json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo $ONE >/seen"], "env": env });
    bundle.spec["hooks"] = json!({ "startContainer": [hook(json!(null))] });
    assert_eq!(bundle.run().ok(), "two");
    bundle.spec["hooks"] = json!({ "startContainer": [hook(json!(["ONE=own"]))] });
    assert_eq!(bundle.run().ok(), "own");
}

fn line_ends(world: &World) {
    let mut bundle = Bundle::new(world, "lineends", "printf 'a\\nb\\n'");
    bundle.spec["process"]["terminal"] = json!(true);
    assert_eq!(bundle.run().out, "a\nb\n");
}

fn sigterm(world: &World) {
    let bundle = Bundle::sleeping(world, "sigterm");
    bundle.make("create", &[]).ok();
    bundle.call(&["kill"], &[]).ok();
    wait_until("its end", || bundle.state()["status"] == "stopped");
}

fn chosen(world: &World) {
    let sets = "grep -E 'Cap(Eff|Bnd|Amb)' /proc/self/status";
    let mut bundle = Bundle::sleeping(world, "chosen");
    bundle.spec["process"]["capabilities"] = json!({});
    bundle.start();
    let none = "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000";
    assert_eq!(bundle.exec(sets).ok(), none);
    let done = bundle.call(&["exec", "--cap", "CAP_KILL"], &["sh", "-c", sets]).ok();
    assert!(done.contains("CapBnd:\t0000000000000020"), "{done}");
    // What the example lists was nobody's choice.
    let example = Bundle::new(world, "example", sets).run().ok();
    assert!(example.contains("CapEff:\t000001ff"), "{example}");
}

fn kernel_log(world: &World) {
    let mut bundle = Bundle::new(
        world,
        "kmsg",
        "head -n 1 /dev/kmsg && echo a >/dev/kmsg && stat -c %a /dev/kmsg",
    );
    bundle.spec["linux"]["devices"] =
        json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600 }]);
    let rules = &mut bundle.spec["linux"]["resources"]["devices"];
    rules
        .as_array_mut()
        .unwrap()
        .push(json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" }));
    assert_eq!(bundle.run().ok(), "600");
}

fn executable(world: &World) {
    let mut bundle = Bundle::new(world, "override", "");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o744);
    bundle.file("/opt/busybox", "");
    let program = bundle.dir.join("rootfs/opt/busybox");
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(program, mode).unwrap();
    bundle.spec["annotations"] = json!({ "io.sysbox.system-container": "false" });
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.spec["process"]["args"] = json!(["/opt/busybox", "echo", "started"]);
    bundle.run().fails(1, "permission denied");
    for set in ["bounding", "effective", "inheritable", "ambient", "permitted"] {
        bundle.spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
    }
    assert_eq!(bundle.run().ok(), "started");
}
