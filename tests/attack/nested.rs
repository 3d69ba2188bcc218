//! What software inside does with namespaces of its own works, and gives no more rights.

use sysbox_tests::{BOOKWORM, Container, shared};

use crate::tool::{ATTACKER, container, judge};

#[test]
fn unshare_mounts_a_proc_of_its_own() {
    let _world = shared();
    let root = "unshare -Urpf --mount-proc sh -c 'echo $$; head -n 1 /proc/meminfo; grep -c . /proc/1/comm'";
    let script = format!("head -n 1 /proc/meminfo; {root}");
    let output = Container::new(BOOKWORM).sh(&script).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((lines[1], lines[0]), ("1", lines[2]), "{output}");
    // An ordinary user of the container, as rootless engines and sandboxes of browsers are.
    let user = Container::new(BOOKWORM).args(["--user", "1000:1000"]).sh(root).ok();
    assert_eq!(user.lines().next(), Some("1"), "{user}");
    // With a network of its own: its own sysfs, too.
    let net = "unshare -Urnmpf --mount-proc sh -c 'mount -t sysfs s /sys && ls /sys/class/net'";
    let devices = Container::new(BOOKWORM).args(["--user", "1000:1000"]).sh(net).ok();
    assert!(devices.lines().all(|name| name != "eth0"), "{devices}");
}

#[test]
fn attacks_from_a_chroot_of_a_container_in_the_container() {
    let _world = shared();
    let script = format!(
        "mkdir /inner && mount --rbind / /inner && chroot /inner sh -c 'mount -t proc p /proc && \
         exec {ATTACKER} locked mask:/etc/debian_version:12.'"
    );
    let dir = tempfile::tempdir().expect("a directory");
    let cover = dir.path().join("cover");
    std::fs::write(&cover, "not the image's").expect("write");
    let cover = format!("{}:/etc/debian_version", cover.display());
    judge(container().args(["--volume", &cover]).sh(&script), 10);
}
