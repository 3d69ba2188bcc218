//! Mounts that software inside makes for itself, beyond those that engines make.

use sysbox_tests::{BUSYBOX, Cmd, Container, cannot_run, shared};

/// A pod's network namespace, or another container's, is not owned by the container.
#[test]
fn a_sysfs_of_a_network_that_was_given() {
    let _world = shared();
    let other = Container::new(BUSYBOX).runtime("runc").start(["sleep", "1000"]);
    let network = format!("container:{}", other.name);
    let script = "mount -t sysfs s /tmp && ls /tmp/class/net && umount /tmp";
    let given = Container::new(BUSYBOX).args(["--network", &network]).sh(script).ok();
    assert!(given.lines().any(|name| name == "eth0"), "{given}");
    // Of the container's own, and of one that it made.
    assert!(Container::new(BUSYBOX).sh(script).ok().lines().any(|name| name == "eth0"));
    let new = Container::new(BUSYBOX).sh(&format!("unshare -n sh -c '{script}'")).ok();
    assert!(new.lines().all(|name| name != "eth0"), "{new}");
}

#[test]
fn binary_formats_are_the_containers_own() {
    let _world = shared();
    let mount = "mount -t binfmt_misc b /tmp";
    let plain = ["--user", "--map-root-user", "--mount", "sh", "-c", mount];
    if !Cmd::new("unshare", plain).run().success() {
        cannot_run(
            "mounts::binary_formats_are_the_containers_own",
            "this kernel has no binfmt_misc in user namespaces (6.7, and built in or loaded)",
        );
        return;
    }
    let register = format!(
        "{mount} && echo ':own:E::own::/bin/echo:' >/tmp/register && echo x >/root/a.own && \
         chmod 755 /root/a.own && /root/a.own works"
    );
    let said = Container::new(BUSYBOX).sh(&register).ok();
    assert_eq!(said, "/root/a.own works");
    let other = Container::new(BUSYBOX).sh(&format!("{mount} && ls /tmp")).ok();
    assert!(!other.contains("own"), "{other}");
}
