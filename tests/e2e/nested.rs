//! A system container inside a system container: the runtime and its daemons run in the outer one.
//!
//! The kernel ID-maps no mounts there and allows no second listener, so the inner containers have the
//! outer one's ids and the outer broker serves their mounts; the inner manager says so.

use std::fs;
use std::time::Duration;

use sysbox_tests::{BUSYBOX, Container, Running, TRIXIE, World, shared, wait_until};

/// Where the outer container has the programs.
const PROGRAMS: &str = "/opt/sysbox";

/// A booted system whose engine has the runtime, with both daemons.
fn system_with_runtime() -> Running {
    let programs = World::current().dir.join("bin");
    let programs = fs::canonicalize(programs.join("sysbox-runc")).expect("the runtime");
    let programs = programs.parent().expect("a directory").display();
    let volume = format!("{programs}:{PROGRAMS}:ro");
    // The inner manager's data, with the volumes of engines that are deeper still.
    let args = ["--volume", &volume, "--volume", "/var/lib/sysbox"];
    let system = Container::booted(TRIXIE, args);
    for daemon in ["sysbox-fs", "sysbox-mgr"] {
        let start = format!("systemd-run --quiet --unit {daemon} {PROGRAMS}/{daemon}");
        system.sh(&start).ok();
        wait_until(&format!("{daemon} is ready"), Duration::from_secs(20), || {
            let log = system.sh(&format!("journalctl --unit {daemon} --output cat --no-pager"));
            let ready = log.stdout.lines().any(|line| line.starts_with("ready"));
            if ready { Ok(()) } else { Err(log.to_string()) }
        });
    }
    let config = format!(r#"{{"runtimes":{{"sysbox":{{"path":"{PROGRAMS}/sysbox-runc"}}}}}}"#);
    let script = format!(
        "mkdir -p /etc/docker && echo '{config}' >/etc/docker/daemon.json && systemctl reload docker \
         && docker load --quiet --input /opt/busybox.tar"
    );
    system.sh(&script).ok();
    wait_until("the inner engine knows the runtime", Duration::from_secs(20), || {
        let info = system.sh("docker info --format '{{json .Runtimes}}'");
        if info.stdout.contains("\"sysbox\"") { Ok(()) } else { Err(info.to_string()) }
    });
    system
}

#[test]
fn a_system_container_inside_a_system_container() {
    let _world = shared();
    let system = system_with_runtime();
    let log = system.sh("journalctl --unit sysbox-mgr --output cat --no-pager").ok();
    assert!(log.contains("this manager is in a container"), "the ids: {log}");
    assert!(log.contains("containers start without a broker"), "the mounts: {log}");

    let start = format!("docker run --detach --name inner --runtime=sysbox {BUSYBOX} sleep 1000");
    system.sh(&start).ok();
    let inner = |script: &str| system.exec(&[], ["docker", "exec", "inner", "sh", "-c", script]);
    // A user namespace of its own, in which it is root, with the outer ids.
    let userns = |output: String| output.trim().to_owned();
    let own = userns(inner("readlink /proc/self/ns/user").ok());
    assert_ne!(own, userns(system.sh("readlink /proc/self/ns/user").ok()));
    let map = inner("cat /proc/self/uid_map").ok();
    assert_eq!(map.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{map}");
    assert_eq!(inner("stat -c %u:%g /etc/passwd").ok(), "0:0");
    // Mounts that its runtime made are locked; what it may mount itself is served.
    for script in [
        "mount -t proc p /tmp && grep -q ^MemTotal /tmp/meminfo && umount /tmp",
        "mount -t sysfs s /tmp && test -d /tmp/class/net/lo && umount /tmp",
        "mount -t tmpfs t /tmp && umount /tmp",
        "echo x >/dev/null && test -c /dev/fuse && mount | grep -q 'on /proc/keys '",
        "! umount /proc/keys && ! umount -l /proc/meminfo && ! mount -o remount,rw /proc/bus",
        "echo 77 >/proc/sys/kernel/panic && grep -qx 77 /proc/sys/kernel/panic",
    ] {
        inner(script).ok();
    }
    assert_ne!(system.sh("cat /proc/sys/kernel/panic").ok(), "77", "a setting of the inner one");
    // Its root could write to a program that belongs to the outer one's root, were it the file.
    let before = system.sh(&format!("sha256sum {PROGRAMS}/sysbox-runc")).ok();
    let catch =
        "for i in $(seq 50); do for p in /proc/[0-9]*; do echo x >>$p/exe; done; done; true";
    std::thread::scope(|scope| {
        let catcher = scope.spawn(|| inner(catch));
        for _ in 0..5 {
            system.exec(&[], ["docker", "exec", "inner", "/proc/self/exe", "list"]);
        }
        catcher.join().expect("a thread");
    });
    assert_eq!(system.sh(&format!("sha256sum {PROGRAMS}/sysbox-runc")).ok(), before);
    system.sh("docker rm --force inner").ok();
    let left = system.sh("ls /run/sysbox-runc /run/docker/runtime-runc 2>/dev/null; mount").ok();
    assert!(!left.contains("stage/root"), "{left}");
}
