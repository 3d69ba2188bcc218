//! What container root sees, in its first namespaces.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountFlags, UnmountFlags, fsopen, mount, mount_bind_recursive, unmount,
};
use rustix::process::{chdir, chroot};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use sysbox_kernel::ns;

use super::layout::{BASE, FILES};

/// A test.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(),
    /// Whether the broker serves the container.
    pub with_listener: bool,
    /// Whether it is to be run again with the methods of older kernels.
    pub depends_on_features: bool,
    /// A measurement.
    pub only_on_request: bool,
    /// Whether the container has /hang, a file system of the host that never answers.
    pub hangs: bool,
    /// How many mounts may be made for it, instead of `fs.mount-max`.
    pub most_mounts: Option<usize>,
}

impl Case {
    pub const fn new(name: &'static str, run: fn()) -> Self {
        Self {
            name,
            run,
            with_listener: true,
            depends_on_features: false,
            only_on_request: false,
            hangs: false,
            most_mounts: None,
        }
    }

    pub const fn on_all_kernels(mut self) -> Self {
        self.depends_on_features = true;
        self
    }
}

pub const CASES: [Case; 15] = [
    Case {
        with_listener: false,
        ..Case::new("without_the_broker_the_kernel_refuses", refused_without)
    },
    Case::new("proc_is_mounted_with_its_files", proc).on_all_kernels(),
    Case::new("sysfs_is_mounted_with_its_files", sysfs).on_all_kernels(),
    Case::new("options_of_proc", options).on_all_kernels(),
    Case::new("read_only_holds_for_the_files", read_only).on_all_kernels(),
    Case::new("paths_are_the_callers", paths),
    Case::new("descriptors_are_the_callers", descriptors),
    Case::new("the_kernel_says_what_is_wrong", errors),
    Case::new("rights_are_needed", rights),
    Case::new("directories_that_one_may_not_enter", permissions),
    Case::new("empty_directories", empty),
    Case::new("new_mount_api_falls_back", new_api),
    Case::new("initial_mounts_stay_locked", locked),
    Case::new("mknod_of_harmless_devices", devices),
    Case { most_mounts: Some(3 * PROC_SIZE + 1), ..Case::new("what_is_made_is_bounded", bounded) },
];

pub fn try_mount(kind: &str, at: impl AsRef<Path>, flags: u32, data: &str) -> Result<(), Errno> {
    let flags = MountFlags::from_bits_retain(flags);
    let data = CString::new(data).expect("text");
    let data = (!data.is_empty()).then_some(data.as_c_str());
    mount("name", at.as_ref(), kind, flags, data)
}

pub fn umount(at: impl AsRef<Path>) -> Result<(), Errno> {
    unmount(at.as_ref(), UnmountFlags::empty())
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Asserts that a proc of the caller's pid namespace is there, with the virtualised files.
pub fn assert_proc(at: &str) {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    assert_eq!(fs::read_link(format!("{at}/self")).expect("self"), Path::new(&own));
    for (name, text) in FILES {
        if let Some(name) = name.strip_prefix("proc/") {
            assert_eq!(read(format!("{at}/{name}")), text, "{name}");
        }
    }
}

/// How many mounts are at or below a path.
pub fn mounts_at(path: &str) -> usize {
    let inside = |line: &&str| {
        let point = line.split(' ').nth(4).expect("a mount point");
        point == path || point.starts_with(&format!("{path}/"))
    };
    read("/proc/self/mountinfo").lines().filter(inside).count()
}

fn refused_without() {
    assert_eq!(try_mount("proc", "/m", 0, ""), Err(Errno::PERM));
    assert_eq!(try_mount("sysfs", "/m", 0, ""), Err(Errno::PERM));
    assert_eq!(try_mount("debugfs", "/m", 0, ""), Err(Errno::PERM));
}

fn proc() {
    assert_eq!(try_mount("proc", "/m", 0xe, ""), Ok(()));
    assert_proc("/m");
    let info = read("/proc/self/mountinfo");
    let line = info.lines().find(|line| line.contains(" /m ")).expect("mounted");
    assert!(line.contains(" /m rw,nosuid,nodev,noexec,relatime"), "{line}");
    assert!(line.ends_with(" - proc name rw"), "{line}");
    assert_eq!(mounts_at("/m"), 4);
    assert_eq!(umount("/m"), Ok(()));
    assert_eq!(mounts_at("/m"), 0);
    assert_eq!(fs::read_dir("/m").expect("directory").count(), 0);
    // The file system belongs to the container: a remount is the kernel's business.
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_eq!(try_mount("proc", "/m", 0x20, "hidepid=2"), Ok(()));
    assert!(read("/proc/self/mountinfo").contains("proc name rw,hidepid=invisible"));
    assert_eq!(unmount("/m", UnmountFlags::DETACH), Ok(()));
}

fn sysfs() {
    assert_eq!(try_mount("sysfs", "/m", 0, ""), Ok(()));
    assert_eq!(read("/m/devices/system/cpu/online"), "0-41\n");
    let interfaces = fs::read_dir("/m/class/net").expect("interfaces");
    let mut names: Vec<_> = interfaces.map(|entry| entry.expect("entry").file_name()).collect();
    names.retain(|name| name == "lo" || name == "eth0");
    assert_eq!(names, ["lo"], "interfaces of the container");
    // One sysfs for each network namespace: the same thing twice on one spot.
    assert_eq!(try_mount("sysfs", "/m", 0, ""), Err(Errno::BUSY));
    assert_eq!(umount("/m"), Ok(()));
    assert_eq!(mounts_at("/m"), 0);
    assert_eq!(try_mount("sysfs", "/m", 0, "mode=755"), Err(Errno::INVAL));
    assert_eq!(try_mount("sysfs", "/m", 1, ""), Ok(()));
    assert_eq!(try_mount("sysfs", "/m2", 0, ""), Ok(()));
    let info = read("/proc/self/mountinfo");
    let line = |start: &str| info.lines().find(|line| line.contains(start)).map(str::to_owned);
    assert!(line(" /m ro,").expect("read-only mount").ends_with(" - sysfs name rw"));
    assert!(line(" /m2 rw,").is_some(), "the other one is not");
    assert_eq!(umount("/m"), Ok(()));
    assert_eq!(umount("/m2"), Ok(()));
}

fn options() {
    assert_eq!(try_mount("proc", "/m", 0, "subset=pid,hidepid=noaccess,gid=5"), Ok(()));
    assert!(!Path::new("/m/uptime").exists());
    let info = read("/proc/self/mountinfo");
    // The kernel shows the host's number, whoever looks.
    let expected = format!("proc name rw,gid={},hidepid=noaccess,subset=pid", BASE + 5);
    assert!(info.contains(&expected), "{info}");
    assert_eq!(unmount("/m", UnmountFlags::DETACH), Ok(()));
    for bad in ["x", "hidepid=9", "gid=70000", "pidns=/proc/self/ns/pid", "subset=all"] {
        assert_eq!(try_mount("proc", "/m", 0, bad), Err(Errno::INVAL), "{bad}");
    }
    assert_eq!(mounts_at("/m"), 0);
}

fn read_only() {
    assert_eq!(try_mount("proc", "/m", 1, ""), Ok(()));
    assert_proc("/m");
    for file in ["/m/uptime", "/m/sys/kernel/panic", "/m/sys/kernel/hostname"] {
        let error = fs::OpenOptions::new().write(true).open(file).expect_err(file);
        assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()), "{file}");
    }
    assert_eq!(umount("/m"), Ok(()));
}

fn paths() {
    chdir("/jail/sub").expect("chdir");
    assert_eq!(try_mount("proc", "../proc", 0, ""), Ok(()));
    assert_proc("/jail/proc");
    assert_eq!(umount("../proc"), Ok(()));
    std::os::unix::fs::symlink("/proc", "/jail/link").expect("symlink");
    in_child(|| {
        chroot("/jail").expect("chroot");
        // The working directory is inside, as it was.
        assert_eq!(try_mount("proc", "/../../link", 0, ""), Ok(()));
        assert_proc("/proc");
        assert_eq!(umount("../../proc"), Ok(()));
        assert_eq!(try_mount("proc", ".", 0, ""), Ok(()));
    });
    assert_eq!(mounts_at("/jail/sub"), 4);
    assert_eq!(umount("/jail/sub"), Ok(()), "mounted from the jail, seen from outside");
    assert_eq!(mounts_at("/jail"), 0);
}

fn descriptors() {
    let dir = fs::File::open("/m").expect("open");
    let number = dir.as_raw_fd();
    for link in ["self", "thread-self", "1", "self/task/1", "1/task/1"] {
        let path = format!("/proc/{link}/fd/{number}");
        assert_eq!(try_mount("proc", &path, 0, ""), Ok(()), "{path}");
        assert_proc("/m");
        assert_eq!(umount("/m"), Ok(()));
    }
    let root = fs::File::open("/").expect("open");
    let path = format!("/proc/self/fd/{}/jail/../jail/proc", root.as_raw_fd());
    assert_eq!(try_mount("proc", path, 0, ""), Ok(()));
    assert_eq!(umount("/proc/self/root/jail/proc"), Ok(()));
    // From a thread, as the container engines written in Go do.
    let thread = std::thread::spawn(move || {
        let path = format!("/proc/thread-self/fd/{}", dir.as_raw_fd());
        assert_eq!(try_mount("proc", path, 0, ""), Ok(()));
        assert_eq!(umount("/m"), Ok(()));
    });
    thread.join().expect("the thread");
    // A directory that only looks like a procfs.
    fs::create_dir_all("/tmp/self/fd/0").expect("mkdir");
    assert_eq!(try_mount("proc", "/tmp/self/fd/0", 0, ""), Ok(()));
    assert_eq!(mounts_at("/tmp/self/fd/0"), 4);
    assert_eq!(umount("/tmp/self/fd/0"), Ok(()));
    assert_eq!(try_mount("proc", "/proc/self/fd/999", 0, ""), Err(Errno::NOENT));
}

fn errors() {
    fs::write("/tmp/file", "").expect("file");
    let long = "x".repeat(5000);
    for (at, expected) in [
        ("/none", Errno::NOENT),
        ("", Errno::NOENT),
        ("/tmp/file", Errno::NOTDIR),
        ("/tmp/file/x", Errno::NOTDIR),
        (long.as_str(), Errno::NAMETOOLONG),
    ] {
        assert_eq!(try_mount("proc", at, 0, ""), Err(expected), "{at}");
        assert_eq!(try_mount("sysfs", at, 0, ""), Err(expected), "{at}");
    }
    assert_eq!(try_mount("nosuchfs", "/m", 0, ""), Err(Errno::NODEV));
    assert_eq!(try_mount("", "/m", 0, ""), Err(Errno::NODEV));
    assert_eq!(try_mount("tmpfs", "/m", 0, ""), Ok(()), "the kernel's own");
    assert_eq!(umount("/m"), Ok(()));
    assert_eq!(umount("/m"), Err(Errno::INVAL));
    assert_eq!(umount("/none"), Err(Errno::NOENT));
    assert_eq!(umount("/jail"), Err(Errno::INVAL));
}

/// Runs `test` in a child, so that what it changes is its own.
pub fn in_child(test: impl FnOnce() + std::panic::UnwindSafe) {
    use sysbox_kernel::process::{CloneFlags, Fork, clone_process, exit_now, wait_pidfd};
    match clone_process(CloneFlags::NONE).expect("clone") {
        Fork::Child => exit_now(i32::from(std::panic::catch_unwind(test).is_err())),
        Fork::Parent { pidfd, .. } => assert_eq!(wait_pidfd(pidfd).expect("waiting"), 0),
    }
}

pub fn without(dropped: CapabilitySet) {
    let mut sets = capabilities(None).expect("capabilities");
    sets.effective -= dropped;
    set_capabilities(None, sets).expect("capabilities");
}

fn rights() {
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    in_child(|| {
        without(CapabilitySet::SYS_ADMIN);
        for kind in ["proc", "sysfs", "debugfs"] {
            assert_eq!(try_mount(kind, "/m2", 0, ""), Err(Errno::PERM), "{kind}");
        }
        assert_eq!(umount("/m"), Err(Errno::PERM));
        assert_eq!(mounts_at("/m"), 4);
        // One thing that it needs not: SYS_ADMIN makes no nodes.
        assert_eq!(make_node("/tmp/null", 1, 3), Ok(()));
    });
    in_child(|| {
        without(CapabilitySet::MKNOD);
        assert_eq!(make_node("/tmp/zero", 1, 5), Err(Errno::PERM));
    });
}

fn permissions() {
    fs::create_dir_all("/tmp/closed/in").expect("mkdir");
    rustix::fs::chmod("/tmp/closed", Mode::empty()).expect("chmod");
    assert_eq!(try_mount("proc", "/tmp/closed/in", 0, ""), Ok(()), "root overrides");
    assert_eq!(umount("/tmp/closed/in"), Ok(()));
    in_child(|| {
        without(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        let closed = try_mount("proc", "/tmp/closed/in", 0, "");
        assert_eq!(closed, Err(Errno::ACCESS));
        assert_eq!(make_node("/tmp/closed/null", 1, 3), Err(Errno::ACCESS));
        assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    });
}

fn empty() {
    for kind in ["debugfs", "tracefs", "securityfs", "configfs", "pstore", "fusectl"] {
        assert_eq!(try_mount(kind, "/m", 0xe, "mode=700"), Ok(()), "{kind}");
        assert_eq!(fs::read_dir("/m").expect("directory").count(), 0);
        let found = fs::metadata("/m").expect("directory");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (0, 0, 0o555));
        assert!(fs::write("/m/x", "").is_err());
        let remounted = try_mount("tmpfs", "/m", 0x20, "size=1g");
        assert_eq!(remounted, Err(Errno::PERM), "it is the host's");
        assert_eq!(umount("/m"), Ok(()));
    }
}

fn new_api() {
    for kind in ["proc", "sysfs", "debugfs"] {
        let opened = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC);
        assert_eq!(opened.err(), Some(Errno::NOSYS), "{kind}");
    }
    fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("tmpfs");
    assert_eq!(fsopen("nosuchfs", FsOpenFlags::empty()).err(), Some(Errno::NODEV));
}

fn locked() {
    for file in ["/proc/uptime", "/proc", "/sys", "/sys/devices/system/cpu/online"] {
        // A file of a sysfs is said to be off, for the sake of Podman, and stays.
        let said = if file.starts_with("/sys/") { Ok(()) } else { Err(Errno::INVAL) };
        assert_eq!(umount(file), said, "{file}");
        assert_eq!(unmount(file, UnmountFlags::DETACH), Err(Errno::INVAL), "{file}");
    }
    assert_eq!(read("/sys/devices/system/cpu/online"), "0-41\n");
    // A copy with all that is on it; the files are locked to it.
    assert_eq!(mount_bind_recursive("/proc", "/m"), Ok(()));
    assert_eq!(umount("/m/uptime"), Err(Errno::INVAL));
    assert_eq!(umount("/m"), Err(Errno::BUSY));
    assert_eq!(unmount("/m", UnmountFlags::DETACH), Ok(()));
    // The broker's mounts do not make the kernel think that a whole proc is in sight, as long as
    // they are whole.
    assert_proc("/proc");
}

/// A proc and its virtualised files are so many mounts.
const PROC_SIZE: usize = 4;

fn bounded() {
    for dir in ["/tmp/a", "/tmp/b", "/tmp/c"] {
        fs::create_dir_all(dir).expect("mkdir");
    }
    let proc = |at| try_mount("proc", at, 0, "");
    // A namespace that is gone took its mounts along, also those that nobody took off.
    for _ in 0..3 {
        in_child(|| {
            ns::unshare(ns::UnshareFlags::NEWNS).unwrap();
            proc("/tmp/a").unwrap();
            proc("/tmp/b").unwrap();
        });
    }
    proc("/tmp/a").unwrap();
    proc("/tmp/b").unwrap();
    in_child(|| {
        ns::unshare(ns::UnshareFlags::NEWNS).unwrap();
        proc("/tmp/c").unwrap();
        assert_eq!(proc("/tmp/c"), Err(Errno::NOSPC), "a fourth one, in another namespace");
        // What has no virtualised files is one mount.
        try_mount("debugfs", "/tmp/c", 0, "").unwrap();
        assert_eq!(try_mount("debugfs", "/tmp/c", 0, ""), Err(Errno::NOSPC));
        umount("/tmp/c").unwrap();
        unmount("/tmp/c", UnmountFlags::DETACH).unwrap();
        proc("/tmp/c").unwrap();
        umount("/tmp/c").unwrap();
        proc("/tmp/c").unwrap();
    });
    // The kernel's own answers stay.
    assert_eq!(try_mount("proc", "/nowhere", 0, ""), Err(Errno::NOENT));
    umount("/tmp/a").unwrap();
    umount("/tmp/b").unwrap();
}

fn make_node(path: &str, major: u32, minor: u32) -> Result<(), Errno> {
    let device = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::CharacterDevice, mode, device)
}

fn devices() {
    rustix::process::umask(Mode::from_raw_mode(0o027));
    for (major, minor) in
        [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (10, 229), (10, 200)]
    {
        let path = format!("/tmp/{major}-{minor}");
        assert_eq!(make_node(&path, major, minor), Ok(()), "{path}");
        let node = fs::symlink_metadata(&path).expect("node");
        assert_eq!(node.rdev(), rustix::fs::makedev(major, minor));
        assert_eq!((node.uid(), node.gid(), node.mode()), (0, 0, 0o020_640), "{path}");
        assert_eq!(make_node(&path, major, minor), Err(Errno::EXIST));
    }
    let mut zeroes = [1; 8];
    let mut zero = fs::File::open("/tmp/1-5").expect("open");
    zero.read_exact(&mut zeroes).expect("read");
    assert_eq!(zeroes, [0; 8]);
    // From a directory descriptor.
    let dir = fs::File::open("/jail").expect("open");
    let mode = Mode::from_raw_mode(0o600);
    let made = mknodat(&dir, "sub/null", FileType::CharacterDevice, mode, 0x103);
    assert_eq!(made, Ok(()));
    assert!(fs::write("/jail/sub/null", "x").is_ok());

    for (major, minor) in [(1, 1), (1, 2), (4, 0), (8, 0), (10, 1)] {
        assert_eq!(make_node("/tmp/bad", major, minor), Err(Errno::PERM), "{major}:{minor}");
    }
    let block = mknodat(CWD, "/tmp/bad", FileType::BlockDevice, mode, 0x103);
    assert_eq!(block, Err(Errno::PERM));
    assert_eq!(make_node("/tmp/whiteout", 0, 0), Ok(()), "native");
    assert_eq!(make_node("/none/null", 1, 3), Err(Errno::NOENT));
    // Where nodes don't work none is made.
    assert_eq!(try_mount("tmpfs", "/m", 0, ""), Ok(()));
    assert_eq!(make_node("/m/null", 1, 3), Err(Errno::PERM));
    assert_eq!(fs::read_dir("/m").expect("directory").count(), 0);
}
