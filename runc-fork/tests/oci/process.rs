//! `process` and what the kernel keeps for it.

use std::fs;

use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("process::scheduler_io_priority_affinity", schedule),
    ("process::personality", personality),
    ("process::rlimits_umask_groups_cwd", basics),
    ("process::a_working_directory_for_root_only", root_cwd),
    ("process::refused_fields", refused),
    ("process::preserved_descriptors", descriptors),
];

fn schedule(world: &World) {
    let mut bundle = Bundle::sleeping(world, "sched");
    bundle.spec["process"]["scheduler"] =
        json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    bundle.spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 3 });
    bundle.spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    bundle.start();
    // Fields 19 (nice) and 41 (policy) of proc_pid_stat(5); the first two end at the parenthesis.
    let stat = fs::read_to_string(format!("/proc/{}/stat", bundle.pid())).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    assert_eq!((fields[16], fields[38]), ("7", "3"), "{stat}");
    let allowed = bundle.exec("grep Cpus_allowed_list /proc/self/status").ok();
    assert!(allowed.ends_with("\t0"), "{allowed}");
    bundle.spec["process"]["scheduler"] = json!({ "policy": "SCHED_OTHER", "priority": 3 });
    bundle.call(&["delete", "--force"], &[]).ok();
    bundle.run().fails(1, "process.scheduler.priority");
}

fn personality(world: &World) {
    let mut bundle = Bundle::new(world, "pers", "cat /proc/self/personality");
    bundle.spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    assert_eq!(bundle.run().ok(), "00000008");
}

fn basics(world: &World) {
    let command = "ulimit -n; umask; id -u; id -G; echo $PWD $HOME $X";
    let mut bundle = Bundle::new(world, "basics", command);
    bundle.file("/etc/passwd", "me:x:55:56::/home/me:/bin/sh\n");
    let process = &mut bundle.spec["process"];
    process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 100 }]);
    process["user"] = json!({ "uid": 55, "gid": 56, "umask": 23, "additionalGids": [57, 58] });
    process["cwd"] = json!("/made/for/it");
    process["env"] = json!(["PATH=/bin", "X=1", "X=2"]);
    let done = bundle.run().ok();
    assert_eq!(
        done.lines().collect::<Vec<_>>(),
        ["99", "0027", "55", "56 57 58", "/made/for/it /home/me 2"]
    );
}

fn root_cwd(world: &World) {
    let mut bundle = Bundle::new(world, "rootcwd", "id -u; ls; cd /closed");
    bundle.file("/closed/f", "");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(bundle.dir.join("rootfs/closed"), closed).unwrap();
    bundle.spec["process"]["cwd"] = json!("/closed");
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let done = bundle.run();
    assert!(done.out == "1000\n" && done.err.contains("denied"), "{done:?}");
}

fn refused(world: &World) {
    for (pointer, value, words) in [
        ("/process/apparmorProfile", json!("mine"), "process.apparmorProfile"),
        ("/process/selinuxLabel", json!("a:b:c:d"), "process.selinuxLabel"),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 9}),
            "process.ioPriority",
        ),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/netDevices", json!({"eth9": {}}), "linux.netDevices"),
        ("/linux/mountLabel", json!("a:b:c:d"), "linux.mountLabel"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "linux.personality"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            "linux.seccomp.listenerPath",
        ),
    ] {
        let mut bundle = Bundle::sleeping(world, words.rsplit('.').next().unwrap());
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bundle.spec.pointer_mut(parent).unwrap()[field] = value;
        bundle.run().fails(1, words);
        assert!(!world.path("root").join(&bundle.id).exists());
    }
}

fn descriptors(world: &World) {
    let bundle = Bundle::new(world, "fds", "cat <&3; ls /proc/self/fd");
    bundle.write();
    let file = bundle.path("handed");
    fs::write(&file, "handed over\n").unwrap();
    let line = format!(
        "exec {} --root {} run --preserve-fds 1 --bundle {} {} 3<{file} 9<{file}",
        env!("CARGO_BIN_EXE_sysbox-runc"),
        world.path("root").display(),
        bundle.dir.display(),
        bundle.id
    );
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &line]).env("SYSBOX_RUN_DIR", world.path("run"));
    let done = world.finish(shell);
    // 0 to 3, and the one with which ls reads the directory.
    assert_eq!(done.ok(), "handed over\n0\n1\n2\n3\n4");
}
