//! Engines and tools that make user namespaces of their own: rootless Podman and Docker, sandboxes,
//! FUSE file systems, tunnels.

use std::time::Duration;

use sysbox_tests::{
    BUSYBOX, Cmd, Container, ENGINES, Output, Running, cannot_run, shared, wait_until,
};

/// The image's ordinary user.
const USER: &str = "user";

/// A booted system with these engines, if the image is here.
fn system(test: &str) -> Option<Running> {
    if !Cmd::docker(["image", "inspect", ENGINES]).run().success() {
        cannot_run(test, &format!("the image {ENGINES} is not loaded here"));
        return None;
    }
    let system = Container::booted::<&str>(ENGINES, []);
    // A session of the user's own, without a login.
    system.sh(&format!("loginctl enable-linger {USER}")).ok();
    wait_until("the user's session", Duration::from_secs(30), || {
        let state = user(&system, "systemctl --user is-system-running");
        if state.stdout.contains("running") { Ok(()) } else { Err(state.to_string()) }
    });
    Some(system)
}

/// Runs a script as the ordinary user.
fn user(system: &Running, script: &str) -> Output {
    let script = format!(
        "cd && export XDG_RUNTIME_DIR=/run/user/$(id -u) \
         DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u)/bus; {script}"
    );
    system.exec(&["--user", USER, "--env", "HOME=/home/user"], ["bash", "-c", &script])
}

/// Limits of inner containers need controllers that a hybrid host has not in its v2 hierarchy.
const PODMAN: &str = "podman run --pids-limit=0 --rm --net=none";

#[test]
fn podman_as_root() {
    let _world = shared();
    let Some(system) = system("engines::podman_as_root") else { return };
    system.sh("podman load --quiet --input /opt/busybox.tar").ok();
    let run = |options: &str, script: &str| {
        system.sh(&format!("{PODMAN} {options} {BUSYBOX} sh -c '{script}'"))
    };
    let memory = system.sh("head -n 1 /proc/meminfo").ok();
    assert_eq!(run("", "head -n 1 /proc/meminfo").ok(), memory);
    // As in any other engine's container: /proc/sys is read-only, the virtualised files included.
    let written = run("", "echo 5 >/proc/sys/kernel/panic; echo 5 >/proc/sys/kernel/msgmax").stderr;
    assert_eq!(written.matches("Read-only file system").count(), 2, "{written}");
    assert_eq!(
        run("--privileged", "mount -t proc p /tmp && ls /tmp/self/comm").ok(),
        "/tmp/self/comm"
    );
    // Takes off what is on /sys first, so that the kernel would let it mount a sysfs.
    let own = run("--userns=auto:size=1000", "cat /proc/self/uid_map; ls /sys/class/net").ok();
    assert!(own.contains("1000") && own.ends_with("lo"), "{own}");
}

#[test]
fn podman_without_root() {
    let _world = shared();
    let Some(system) = system("engines::podman_without_root") else { return };
    user(&system, "podman load --quiet --input /opt/busybox.tar").ok();
    let run = |options: &str, script: &str| {
        user(&system, &format!("{PODMAN} {options} {BUSYBOX} sh -c '{script}'"))
    };
    let memory = system.sh("head -n 1 /proc/meminfo").ok();
    assert_eq!(run("", "id -u; head -n 1 /proc/meminfo").ok(), format!("0\n{memory}"));
    assert!(run("--privileged", "grep -c sysbox-fs /proc/mounts").ok() != "0");
}

#[test]
fn docker_without_root() {
    let _world = shared();
    let Some(system) = system("engines::docker_without_root") else { return };
    let start = "export PATH=/usr/sbin:/sbin:$PATH
        systemd-run --user --quiet --unit rootless --setenv PATH=$PATH --setenv XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR \
        /usr/share/docker.io/contrib/dockerd-rootless.sh";
    user(&system, start).ok();
    let docker = |args: &str| {
        user(&system, &format!("docker --host unix://$XDG_RUNTIME_DIR/docker.sock {args}"))
    };
    wait_until("the user's engine answers", Duration::from_secs(60), || {
        let info = docker("info --format '{{.SecurityOptions}}'");
        if info.stdout.contains("rootless") { Ok(()) } else { Err(info.to_string()) }
    });
    docker("load --quiet --input /opt/busybox.tar").ok();
    let memory = system.sh("head -n 1 /proc/meminfo").ok();
    let hello = docker(&format!("run --rm {BUSYBOX} sh -c 'id -u; head -n 1 /proc/meminfo'")).ok();
    assert_eq!(hello, format!("0\n{memory}"));
}

#[test]
fn sandboxes_file_systems_and_tunnels() {
    let _world = shared();
    let Some(system) = system("engines::sandboxes_file_systems_and_tunnels") else { return };
    let sandbox = "bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all --die-with-parent \
                   sh -c 'head -n 1 /proc/meminfo; echo /proc/[0-9]*'";
    let memory = system.sh("head -n 1 /proc/meminfo").ok();
    for output in [system.sh(sandbox), user(&system, sandbox)] {
        let output = output.ok();
        let (first, processes) = output.split_once('\n').expect("two lines");
        assert_eq!(first, memory);
        assert!(processes.split(' ').count() < 5, "its own processes only: {processes}");
    }
    // A file system that is served from inside, mounted by root and by a user.
    let overlay = "mkdir -p l u w m && echo lower >l/file && \
        fuse-overlayfs -o lowerdir=l,upperdir=u,workdir=w m && echo upper >>m/file && cat u/file && \
        fusermount3 -u m";
    for output in [system.sh(&format!("cd /root && {overlay}")), user(&system, overlay)] {
        assert_eq!(output.ok(), "lower\nupper");
    }
    let tunnel = "ip tuntap add dev tun0 mode tun && ip address add 10.99.0.1/30 dev tun0 && \
        ip link set tun0 up && ip -brief address show tun0";
    assert!(system.sh(tunnel).ok().contains("10.99.0.1/30"));
}

/// What debootstrap and mmdebstrap do to a new root directory.
#[test]
fn a_root_directory_for_chroot() {
    let _world = shared();
    let Some(system) = system("engines::a_root_directory_for_chroot") else { return };
    let script = "set -e; mkdir -p /root/r && cd /root/r && mkdir dev proc sys
        tar -xOf /opt/busybox.tar layer.tar | tar -x --exclude ./dev --exclude ./proc --exclude ./sys
        umask 0
        for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0' 'console 5 1'; do
            set -- $node; mknod -m 666 dev/$1 c $2 $3
        done
        mount -t proc proc proc; mount -t sysfs sys sys; mount -t devpts -o newinstance pts dev 2>/dev/null && umount dev
        chroot . /bin/sh -c 'echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -n 1 /proc/meminfo; ls /sys/class/net/lo/address'
        umount sys; umount proc
        ! head -c 1 dev/console";
    let output = system.sh(script);
    let text = output.ok();
    assert!(text.starts_with('3') && text.contains("MemTotal"), "{text}");
}
