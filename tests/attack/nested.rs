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

/// What Docker masks or makes read-only on the first proc and sysfs is uncovered on a new one. The kernel
/// guards it: nothing there can be written, and what tells of more than names can't be read.
#[test]
fn what_is_masked_is_guarded_by_the_kernel_on_a_new_proc_and_sysfs() {
    let _world = shared();
    let script = r#"
        mkdir /p /s && mount -t proc p /p && mount -t sysfs s /s || exit 1
        cd /p
        for file in kcore latency_stats timer_list timer_stats sched_debug slabinfo; do
            head -c 1 $file && echo "read $file"
        done
        find /s/firmware/acpi/tables /s/firmware/dmi/tables /s/firmware/efi/efivars /s/devices/virtual/powercap \
            -type f \( -name energy_uj -o -path '*firmware*' \) | while read file; do
            head -c 1 "$file" && echo "read $file"
        done
        find acpi asound bus fs irq scsi kcore keys sysrq-trigger timer_list /s/firmware -type f |
            while read file; do (: >"$file") && echo "wrote $file"; done
        echo end
    "#;
    let output = Container::new(BOOKWORM).sh(script);
    assert_eq!(output.ok(), "end");
}
