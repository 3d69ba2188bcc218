//! A reboot of the host: every process is killed, /run is emptied, what was mounted is gone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sysbox_ipc::MgrClient;
use sysbox_tests::{BOOKWORM, BUSYBOX, Cmd, Container, World, alone, daemons, wait_until};

/// All that runs in a world, the engine last.
const ALL: [&str; 4] = ["sysbox-fs", "sysbox-mgr", "containerd", "dockerd"];

/// What a power failure leaves: the disks, and nothing else of the world.
fn power_failure() {
    let world = World::current();
    let pids: Vec<String> = ALL.iter().map(|daemon| daemons::pid_of(daemon)).collect();
    Cmd::new("kill", ["-KILL"]).args(&pids).ok();
    for controller in ["containers", "engine"] {
        kill_cgroup(&world, controller);
    }
    unmount_below(&world.dir);
    let run = world.dir.join("run");
    fs::remove_dir_all(&run).expect("emptying the run directory");
    fs::create_dir(&run).expect("making the run directory");
    remove_cgroups(&world);
}

/// Kills what is in a cgroup of the world; of the engine's, which this test and the keeper of the world
/// are in, what it and the daemons have started.
fn kill_cgroup(world: &World, below: &str) {
    let script = format!(
        "for dir in $(find /sys/fs/cgroup -type d -path '*/{name}/{below}*'); do
            for pid in $(cat $dir/cgroup.procs); do
                case {below}:$(cat /proc/$pid/comm) in
                    containers:* | engine:containerd-shim* | engine:sysbox-* | engine:docker-proxy)
                        kill -KILL $pid ;;
                esac
            done
        done 2>/dev/null; true",
        name = world.cgroup_name()
    );
    Cmd::new("sh", ["-c", &script]).run();
}

fn unmount_below(dir: &Path) {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("reading the mount table");
    let below = format!("{}/", dir.display());
    let mut places: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    places.retain(|place| place.starts_with(&below));
    for place in places.iter().rev() {
        Cmd::new("umount", ["--lazy", place]).run();
    }
}

fn remove_cgroups(world: &World) {
    // Where a controller is in no hierarchy Podman makes plain directories, with plain files in them.
    let script = format!(
        "find /sys/fs/cgroup -depth -path '*/{name}/containers/*' -fstype tmpfs -delete
        find /sys/fs/cgroup -depth -type d -path '*/{name}/containers/*' -exec rmdir {{}} \\; 2>/dev/null
        true",
        name = world.cgroup_name()
    );
    wait_until("the cgroups of containers are gone", Duration::from_secs(20), || {
        Cmd::new("sh", ["-c", &script]).run();
        let find =
            format!("find /sys/fs/cgroup -type d -path '*/{}/containers/*'", world.cgroup_name());
        let left = Cmd::new("sh", ["-c", &find]).run().stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn states() -> Vec<(String, String)> {
    let status =
        MgrClient::connect().and_then(|manager| manager.status()).expect("asking sysbox-mgr");
    status.containers.into_iter().map(|c| (c.id, c.state)).collect()
}

#[test]
fn after_a_reboot_containers_start_with_all_their_data() {
    let _world = alone();
    let system = Container::booted::<&str>(BOOKWORM, []);
    system.sh("docker load --input /opt/busybox.tar && echo kept >/root/file").ok();
    system.sh(&format!("docker run --name inner {BUSYBOX} sh -c 'echo deep >/file'; sync")).ok();
    let plain = Container::sleeping(["--volume", "/data"]);
    plain.sh("echo volume >/data/file; sync").ok();
    let doomed = Container::booted::<&str>(BOOKWORM, []);
    let doomed_id = doomed.id();

    power_failure();
    daemons::start(&["sysbox-fs", "sysbox-mgr"]);
    let after = states();
    assert!(after.iter().all(|(_, state)| state == "stopped"), "{after:?}");
    daemons::start(&["containerd", "dockerd"]);

    for container in [&system, &plain] {
        container.docker(["start"]);
    }
    system.wait_booted();
    assert_eq!(system.sh("cat /root/file").ok(), "kept");
    system.sh("docker start inner && docker wait inner").ok();
    assert_eq!(system.sh("docker cp inner:/file - | tar -xO").ok(), "deep");
    assert_eq!(plain.sh("cat /data/file").ok(), "volume");
    // What is removed now, although it was never started again, leaves nothing behind.
    drop(doomed);
    wait_until("nothing is left of it", Duration::from_secs(30), || {
        let left: Vec<_> = states().into_iter().filter(|(id, _)| *id == doomed_id).collect();
        let volumes = World::current().data_root().join("volumes").join(&doomed_id);
        if left.is_empty() && !volumes.exists() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
