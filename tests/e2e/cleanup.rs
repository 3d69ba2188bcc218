//! Nothing stays behind: not of many containers, not of failed starts, not of a killed engine.

use std::path::Path;
use std::time::Duration;

use sysbox_tests::{BUSYBOX, Cmd, Container, Snapshot, World, alone, daemons};

/// What the engine and the daemons make on first use and keep is made before the first snapshot.
fn warm_up() -> Snapshot {
    Container::new(BUSYBOX).sh("true").ok();
    Snapshot::take()
}

#[test]
fn twenty_in_parallel_leave_nothing() {
    let _world = alone();
    let before = warm_up();
    std::thread::scope(|scope| {
        for index in 0..20 {
            scope.spawn(move || {
                // Half of them end by themselves, half are removed while they run.
                if index % 2 == 0 {
                    let output = Container::new(BUSYBOX)
                        .args(["--volume", "/data"])
                        .sh("mkdir /sys/fs/cgroup/x && echo done");
                    assert_eq!(output.ok(), "done");
                } else {
                    let container = Container::sleeping(["--memory", "64m"]);
                    container.sh("mkdir /made && mount -t tmpfs none /made").ok();
                }
            });
        }
    });
    before.wait_restored();
}

#[test]
fn starts_that_fail_half_way_leave_nothing() {
    let _world = alone();
    let before = warm_up();
    let missing = Container::new(BUSYBOX).refused(["/no/such/program"]);
    assert!(missing.contains("/no/such/program"), "{missing}");
    let file = Container::new(BUSYBOX).refused(["/etc/passwd"]);
    assert!(file.contains("/etc/passwd") && file.to_lowercase().contains("permission"), "{file}");
    let directory = Container::new(BUSYBOX).args(["--workdir", "/etc/passwd"]).refused(["true"]);
    assert!(directory.to_lowercase().contains("not a directory"), "{directory}");
    let bind = ["--mount", "type=bind,source=/proc,target=/proc/self/fd"];
    Container::new(BUSYBOX).args(bind).refused(["true"]);
    before.wait_restored();
}

#[test]
fn an_engine_killed_during_create_leaves_nothing() {
    let _world = alone();
    let world = World::current();
    let before = warm_up();
    // Creating a container takes about a quarter of a second: the kills fall all over it.
    for delay in [30, 80, 120, 160, 200, 260, 320] {
        let names: Vec<String> =
            (0..3).map(|i| format!("doomed-{}-{delay}-{i}", std::process::id())).collect();
        let mut clients: Vec<_> = names
            .iter()
            .map(|name| {
                let run = ["run", "--detach", "--runtime", "sysbox", "--name", name, BUSYBOX];
                Cmd::docker(run).args(["sleep", "1000"]).spawn()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(delay));
        let engine = ["dockerd", "containerd"].map(daemons::pid_of);
        for pid in &engine {
            Cmd::new("kill", ["-KILL", pid]).ok();
        }
        for client in &mut clients {
            let _ = client.wait();
        }
        // One that still dies, on a busy machine, would not be started again.
        for pid in &engine {
            daemons::wait_dead(pid);
        }
        daemons::start(&[]);
        for name in &names {
            Cmd::docker(["rm", "--force", name]).run();
        }
        remove_forgotten(&world);
        before.wait_restored_but_for_the_engine();
        Container::new(BUSYBOX).sh("true").ok();
    }
    daemons::end_shims_of("");
}

/// An engine that is killed right after a `create` has never heard of that container: its shim keeps
/// it, with plain runc too, until somebody asks the runtime to delete it.
fn remove_forgotten(world: &World) {
    let root = world.dir.join("run/docker/runtime-runc/moby");
    let listed = Cmd::docker(["ps", "--all", "--quiet", "--no-trunc"]).ok();
    for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
        let id = entry.file_name().into_string().unwrap();
        if !listed.lines().any(|line| line == id) {
            daemons::end_shims_of(&id);
            let runtime = world.runtime();
            Cmd::new(runtime.to_str().unwrap(), ["--root", root.to_str().unwrap()])
                .args(["delete", "--force", &id])
                .ok();
        }
    }
    // Nor of its mount, which a Docker that keeps images in containerd makes itself.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let places = world.dir.join("engine/docker/rootfs/overlayfs");
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        let id = Path::new(mount).strip_prefix(&places).ok().and_then(Path::to_str);
        if id.is_some_and(|id| !listed.lines().any(|line| line == id)) {
            Cmd::new("umount", [mount]).ok();
        }
    }
}
