//! Callers in namespaces of their own, below the container's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use sysbox_kernel::ns::{UnshareFlags, unshare};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process, exit_now, wait_pidfd};

use super::cases::{Case, assert_proc, in_child, mounts_at, try_mount, umount};
use super::container::become_root;

pub const CASES: [Case; 5] = [
    Case::new("nested_pid_and_mount_namespace", pid_and_mount).on_all_kernels(),
    Case::new("nested_net_namespace", net).on_all_kernels(),
    Case::new("nested_user_namespace", user).on_all_kernels(),
    Case::new("user_namespace_of_an_ordinary_user", rootless).on_all_kernels(),
    Case::new("a_user_namespace_alone_gives_no_right", user_only),
];

/// Runs `test` as the first process of new namespaces.
fn in_namespaces(flags: CloneFlags, test: impl FnOnce() + std::panic::UnwindSafe) {
    match clone_process(flags).expect("clone") {
        Fork::Child => exit_now(i32::from(std::panic::catch_unwind(test).is_err())),
        Fork::Parent { pidfd, .. } => assert_eq!(wait_pidfd(pidfd).expect("waiting"), 0),
    }
}

/// As [`in_namespaces`], with a user namespace too, in which `user` of this one is root.
fn in_user_namespace(flags: CloneFlags, user: u32, test: impl FnOnce() + std::panic::UnwindSafe) {
    let (mut ours, mut theirs) = UnixStream::pair().expect("sockets");
    match clone_process(flags.with(CloneFlags::NEWUSER)).expect("clone") {
        Fork::Child => {
            drop(ours);
            let test = std::panic::AssertUnwindSafe(|| {
                theirs.read_exact(&mut [0]).expect("maps");
                become_root();
                test();
            });
            exit_now(i32::from(std::panic::catch_unwind(test).is_err()));
        }
        Fork::Parent { pid, pidfd } => {
            for map in ["uid_map", "gid_map"] {
                let path = format!("/proc/{pid}/{map}");
                fs::write(path, format!("0 {user} 1")).expect("mapping ids");
            }
            ours.write_all(b"m").expect("telling it");
            assert_eq!(wait_pidfd(pidfd).expect("waiting"), 0);
        }
    }
}

fn own_mounts() {
    unshare(UnshareFlags::NEWNS).expect("unshare");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private");
}

fn pid_and_mount() {
    in_namespaces(CloneFlags::NEWPID, || {
        own_mounts();
        assert_eq!(std::process::id(), 1);
        assert_eq!(try_mount("proc", "/proc", 0, ""), Ok(()), "as unshare --mount-proc");
        assert_proc("/proc");
        assert_eq!(mounts_at("/proc"), 8, "the container's, and this one on top");
        assert!(!Path::new("/proc/2").exists());
        assert_eq!(umount("/proc"), Ok(()));
    });
    assert_eq!(mounts_at("/proc"), 4);
}

fn net() {
    in_namespaces(CloneFlags::NEWNET, || {
        own_mounts();
        assert_eq!(try_mount("sysfs", "/sys", 0, ""), Ok(()), "another one than the container's");
        let index = fs::read_to_string("/sys/class/net/lo/ifindex").expect("lo");
        assert_eq!(index.trim(), "1");
        assert_eq!(fs::read_to_string("/sys/devices/system/cpu/online").expect("file"), "0-41\n");
        assert_eq!(try_mount("sysfs", "/sys", 0, ""), Err(Errno::BUSY));
        assert_eq!(umount("/sys"), Ok(()));
    });
    assert_eq!(try_mount("sysfs", "/sys", 0, ""), Err(Errno::BUSY), "the same once more");
}

fn user() {
    let flags = CloneFlags::NEWPID.with(CloneFlags::NEWNET);
    in_user_namespace(flags, 0, all_below);
}

fn rootless() {
    in_child(|| {
        let user = rustix::thread::Uid::from_raw(1000);
        let group = rustix::thread::Gid::from_raw(1000);
        rustix::thread::set_thread_res_gid(group, group, group).expect("setgid");
        rustix::thread::set_thread_res_uid(user, user, user).expect("setuid");
        let on = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(on).expect("dumpable");
        assert_eq!(try_mount("proc", "/m", 0, ""), Err(Errno::PERM));
        // As `unshare -Urpf --mount-proc` and bubblewrap: a user namespace without help.
        let flags = CloneFlags::NEWUSER.with(CloneFlags::NEWPID).with(CloneFlags::NEWNET);
        in_namespaces(flags, || {
            fs::write("/proc/self/setgroups", "deny").expect("setgroups");
            fs::write("/proc/self/uid_map", "0 1000 1").expect("uid_map");
            fs::write("/proc/self/gid_map", "0 1000 1").expect("gid_map");
            all_below();
        });
    });
}

fn all_below() {
    own_mounts();
    assert_eq!(try_mount("proc", "/proc", 0xe, ""), Ok(()));
    assert_proc("/proc");
    assert_eq!(try_mount("sysfs", "/sys", 1, ""), Ok(()));
    assert_eq!(umount("/proc"), Ok(()));
    assert_eq!(umount("/sys"), Ok(()));
    // What came with the copy of the mount namespace is locked here as everywhere.
    assert_eq!(umount("/proc/uptime"), Err(Errno::INVAL));
    // Another copy locks what was made here.
    assert_eq!(try_mount("proc", "/proc", 0, ""), Ok(()));
    in_user_namespace(CloneFlags::NEWPID, 0, || {
        own_mounts();
        assert_eq!(umount("/proc"), Err(Errno::INVAL));
        assert_eq!(umount("/proc/uptime"), Err(Errno::INVAL));
        assert_eq!(try_mount("proc", "/proc", 0, ""), Ok(()));
        assert_proc("/proc");
        // Not of its own network namespace, so not its sysfs to mount.
        assert_eq!(try_mount("sysfs", "/sys", 0, ""), Err(Errno::PERM));
    });
}

fn user_only() {
    in_user_namespace(CloneFlags::NONE, 0, || {
        // Root there, in the mount and pid namespace of the container.
        assert_eq!(try_mount("proc", "/m", 0, ""), Err(Errno::PERM));
        assert_eq!(try_mount("debugfs", "/m", 0, ""), Err(Errno::PERM));
        assert_eq!(umount("/proc"), Err(Errno::PERM));
        own_mounts();
        assert_eq!(try_mount("proc", "/m", 0, ""), Err(Errno::PERM), "pid namespace of others");
        assert_eq!(try_mount("debugfs", "/m", 0, ""), Ok(()));
    });
}
