//! The mounts of a container, made by the host in a mount namespace of the builder.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountAttrFlags, MountFlags, MountPropagationFlags, mount, mount_bind, mount_change,
};
use sysbox_ipc::paths::{ALL, flat};
use sysbox_kernel::{mount as mounts, notify, ns};

/// First host id of the container.
pub const BASE: u32 = 700_000;
/// How many ids it has.
pub const IDS: u32 = 65_536;
/// The virtualised files and what is in them.
pub const FILES: [(&str, &str); 4] = [
    ("proc/uptime", "4242.00 4242.00\n"),
    ("proc/meminfo", "MemTotal: 42 kB\n"),
    ("proc/sys/kernel/panic", "42\n"),
    ("sys/devices/system/cpu/online", "0-41\n"),
];

const NO_OPTIONS: Option<&CStr> = None;

/// A private mount namespace for the calling process.
pub fn private_mounts() {
    ns::unshare(ns::UnshareFlags::NEWNS).expect("unshare");
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).expect("private mounts");
}

/// A tmpfs.
pub fn tmpfs(at: &Path) {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), NO_OPTIONS).expect("tmpfs");
}

/// The stand-in for the FUSE directory of a container.
pub fn emulated_files(dir: &Path) {
    tmpfs(dir);
    for (name, text) in FILES {
        let file = dir.join(ALL).join(flat(name));
        fs::create_dir_all(file.parent().expect("a directory")).expect("mkdir");
        fs::write(&file, text).expect("write");
        std::os::unix::fs::chown(file, Some(BASE), Some(BASE)).expect("chown");
    }
}

/// The root of a container, with proc and sysfs of the namespaces of process `pid`.
pub fn root(at: &Path, emulated: &Path, pid: i32) {
    tmpfs(at);
    std::os::unix::fs::chown(at, Some(BASE), Some(BASE)).expect("chown");
    for name in ["usr", "bin", "lib", "lib64", "sbin", "etc"] {
        let source = Path::new("/").join(name);
        match fs::read_link(&source) {
            Ok(link) => std::os::unix::fs::symlink(link, at.join(name)).expect("symlink"),
            Err(_) if source.is_dir() => mount_bind(source, dir(at, name)).expect("bind"),
            Err(_) => {}
        }
    }
    for name in ["m", "m2", "tmp", "old", "jail", "jail/proc", "jail/sub"] {
        let dir = dir(at, name);
        std::os::unix::fs::chown(dir, Some(BASE), Some(BASE)).expect("chown");
    }
    let own = open("/proc/self/ns/pid");
    let pidns = open(&format!("/proc/{pid}/ns/pid"));
    let proc = notify::new_proc_by_child(&pidns, &own, &[], 0).expect("proc");
    attach(&proc, &dir(at, "proc"));
    // Whose interfaces a sysfs shows is decided by who makes it.
    let own = open("/proc/self/ns/net");
    enter_net(&open(&format!("/proc/{pid}/ns/net")));
    let sys = mounts::new_mount("sysfs", &[], MountAttrFlags::empty()).expect("sysfs");
    attach(&sys, &dir(at, "sys"));
    enter_net(&own);
    for (name, _) in FILES {
        mount_bind(emulated.join(ALL).join(flat(name)), at.join(name)).expect("virtualised file");
    }
}

/// A FUSE file system without a server, at /hang; it comes to an end when the result is dropped.
pub fn hanging_directory(root: &Path) -> OwnedFd {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
    let number = device.as_raw_fd().to_string();
    let options = [
        ("fd", number.as_str()),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
        ("allow_other", ""),
    ];
    let mount = mounts::new_mount("fuse", &options, MountAttrFlags::empty()).expect("fuse");
    let target = rustix::fs::openat(
        rustix::fs::CWD,
        dir(root, "hang"),
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    );
    mounts::attach(mount, target.expect("/hang")).expect("attach");
    device.into()
}

fn dir(at: &Path, name: &str) -> PathBuf {
    let dir = at.join(name);
    fs::create_dir_all(&dir).expect("mkdir");
    dir
}

fn open(path: &str) -> OwnedFd {
    fs::File::open(path).expect("open").into()
}

fn attach(mount: &OwnedFd, at: &Path) {
    let target = open(at.to_str().expect("text"));
    mounts::attach(mount, target).expect("attach");
}

fn enter_net(namespace: &OwnedFd) {
    let kind = Some(ns::LinkNameSpaceType::Network);
    ns::move_into_link_name_space(namespace.as_fd(), kind).expect("setns");
}
