//! What belongs to the host: settings, clock, modules, devices, limits, what leads out of the container.
//!
//! Settings are attacked with values that are valid, so that the only thing that stops them is the right
//! to. The test compares the host's own before and after.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::report::{answer, breach, refused};
use crate::sys::{self, CWD, Entry, call, text};

/// System calls that change the machine. All with arguments that would work for the host's root.
pub fn calls() {
    let now = libc::timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let time = [now.tv_sec.cast_unsigned(), 0];
    let time = time.as_ptr() as u64;
    for clock in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_TAI] {
        let args = [clock as u64, time];
        refused("clock_settime", call(Entry::Native, sys::CLOCK_SETTIME, &args));
    }
    refused("settimeofday", call(Entry::Native, sys::SETTIMEOFDAY, &[time, 0]));
    let module = fs::read("/proc/self/exe").expect("this program");
    let at = module.as_ptr() as u64;
    let (empty, self_exe) = (text(Some("")), fs::File::open("/proc/self/exe").expect("open"));
    let fd = std::os::fd::AsRawFd::as_raw_fd(&self_exe) as u64;
    let node = text(Some("/tmp"));
    for (name, args) in [
        (sys::INIT_MODULE, vec![at, module.len() as u64, empty]),
        (sys::FINIT_MODULE, vec![fd, empty, 0]),
        (sys::DELETE_MODULE, vec![text(Some("loop")), 0o4000]),
        (sys::KEXEC_LOAD, vec![0, 0, 0, 0]),
        (sys::SWAPON, vec![node, 0]),
        (sys::SWAPOFF, vec![node]),
        (sys::ACCT, vec![text(Some("/tmp/acct"))]),
        // Turn the console's messages off; clear the log.
        (sys::SYSLOG, vec![6, 0, 0]),
        (sys::SYSLOG, vec![5, 0, 0]),
        (sys::IOPERM, vec![0x70, 2, 1]),
        (sys::IOPL, vec![3]),
        (sys::PERF_EVENT_OPEN, vec![0, u64::MAX, 0, u64::MAX, 0]),
    ] {
        for entry in [Entry::Native, Entry::I386, Entry::X32] {
            // Addresses of this program's own memory don't fit into 32 bits.
            if entry != Entry::I386 || args.iter().all(|&arg| u32::try_from(arg).is_ok()) {
                refused(&format!("{} ({entry:?})", name.name), call(entry, name, &args));
            }
        }
    }
    // Allowed or not by the profile; either way it ends at the same checks of the kernel.
    for name in [sys::USERFAULTFD, sys::IO_URING_SETUP] {
        answer(name.name, call(Entry::Native, name, &[1, 0]));
    }
    limits();
}

fn limits() {
    for (name, resource) in [("nofile", libc::RLIMIT_NOFILE), ("nproc", libc::RLIMIT_NPROC)] {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel stores into `now`, which is live.
        unsafe { libc::getrlimit(resource, &raw mut now) };
        if now.rlim_max == libc::RLIM_INFINITY {
            continue;
        }
        let more = [now.rlim_max + 1, now.rlim_max + 1];
        let args = [0, u64::from(resource), more.as_ptr() as u64, 0];
        refused(&format!("raise {name}"), call(Entry::Native, sys::PRLIMIT64, &args));
    }
    // A score that the engine raised may be lowered again, down to where the engine itself is.
    refused("lower oom_score_adj", fs::write("/proc/self/oom_score_adj", "-1"));
}

/// Writes to every setting that can be opened, old value plus one. Those of namespaces of the container
/// take it, those that are emulated take it for the container; neither may reach the host.
pub fn settings() {
    // What the container's cgroup and its networks hold is its own business.
    for dir in ["proc/sys", "sys/bus", "sys/devices", "sys/kernel", "sys/module", "sys/power"] {
        let top = Path::new("/").join(dir);
        let (mut changed, mut denied) = (0, 0);
        walk(&top, &mut |file| {
            let Ok(old) = fs::read_to_string(file) else { return };
            let new = match old.trim().parse::<i64>() {
                Ok(number) => number.checked_add(1).unwrap_or(0).to_string(),
                Err(_) => old.clone(),
            };
            match write_existing(file, &new) {
                Ok(()) => changed += 1,
                Err(_) => denied += 1,
            }
        });
        let what = format!("settings in /{dir} that took another value, and that did not");
        answer(&what, (changed, denied));
    }
    for (file, value) in [
        ("/proc/sysrq-trigger", "h"),
        ("/proc/sys/kernel/core_pattern", "|/tmp/attack"),
        ("/proc/sys/kernel/modprobe", "/tmp/attack"),
        ("/proc/sys/kernel/hotplug", "/tmp/attack"),
        ("/proc/sys/fs/binfmt_misc/register", ":attack:M::attack::/tmp/attack:"),
        ("/proc/irq/default_smp_affinity", "1"),
        ("/proc/mtrr", "disable=0"),
        ("/sys/kernel/uevent_helper", "/tmp/attack"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "never"),
        ("/sys/kernel/mm/ksm/run", "1"),
        ("/sys/module/kernel/parameters/consoleblank", "0"),
        ("/sys/power/state", "mem"),
        ("/sys/block/vda/queue/read_ahead_kb", "1"),
        ("/sys/devices/system/cpu/cpu1/online", "0"),
        ("/sys/kernel/security/apparmor/.load", "x"),
        ("/sys/fs/cgroup/release_agent", "/tmp/attack"),
    ] {
        answer(&format!("write {file}"), write_existing(file, value));
    }
}

fn write_existing(file: impl AsRef<Path>, value: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn walk(dir: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), each),
            Ok(kind) if kind.is_file() => each(&entry.path()),
            _ => {}
        }
    }
}

/// Devices: those that are there, and those that one would like to make.
pub fn devices() {
    for (what, kind, major, minor) in [
        ("mem", libc::S_IFCHR, 1, 1),
        ("port", libc::S_IFCHR, 1, 4),
        ("kmsg", libc::S_IFCHR, 1, 11),
        ("console of the host", libc::S_IFCHR, 5, 1),
        ("first terminal", libc::S_IFCHR, 4, 0),
        ("serial line", libc::S_IFCHR, 4, 64),
        ("loop-control", libc::S_IFCHR, 10, 237),
        ("vhost-net", libc::S_IFCHR, 10, 238),
        ("rtc", libc::S_IFCHR, 250, 0),
        ("ram disk", libc::S_IFBLK, 1, 0),
        ("loop device", libc::S_IFBLK, 7, 0),
        ("first SCSI disk", libc::S_IFBLK, 8, 0),
        ("first virtual disk", libc::S_IFBLK, 254, 0),
        ("first virtual disk, other number", libc::S_IFBLK, 253, 0),
    ] {
        for entry in [Entry::Native, Entry::I386] {
            for dir in ["/tmp", "/dev", "/dev/shm"] {
                let path = format!("{dir}/attack-node");
                let number = libc::makedev(major, minor);
                let args = [CWD, text(Some(&path)), u64::from(kind | 0o666), number];
                let made = call(entry, sys::MKNODAT, &args);
                answer(&format!("mknod {what} in {dir} ({entry:?})"), made);
                if fs::File::open(&path).is_ok() {
                    breach(&format!("{what} was made in {dir} and can be opened"));
                }
                let _ = fs::remove_file(path);
            }
        }
    }
    for file in ["/dev/mem", "/dev/port", "/proc/kcore", "/proc/kmsg", "/proc/timer_list"] {
        // A file that is masked reads as empty.
        let read = fs::File::open(file).and_then(|mut file| file.read(&mut [0; 64]));
        if read.as_ref().is_ok_and(|&bytes| bytes > 0) {
            breach(&format!("{file} can be read"));
        }
        answer(&format!("read {file}"), read);
    }
    walk_devices(Path::new("/dev"));
}

fn walk_devices(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_block_device() => {
                let flags = libc::O_NONBLOCK;
                let opened =
                    fs::OpenOptions::new().read(true).custom_flags(flags).open(entry.path());
                refused(&format!("open block device {}", entry.path().display()), opened);
            }
            Ok(kind) if kind.is_dir() => walk_devices(&entry.path()),
            _ => {}
        }
    }
}

/// The container's cgroup: limits are set one level above what is seen of it.
pub fn cgroups() {
    const TOP: &str = "/sys/fs/cgroup";
    for (file, value) in [
        ("memory.max", "max"),
        ("memory.high", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
        ("cpu.max", "max 100000"),
        ("cpu.weight", "10000"),
        ("cpuset.cpus", "0-1"),
        ("cgroup.freeze", "1"),
        ("cgroup.kill", "1"),
        ("cgroup.max.depth", "max"),
        ("cgroup.type", "threaded"),
    ] {
        refused(&format!("write {file}"), write_existing(format!("{TOP}/{file}"), value));
    }
    for version in ["cgroup", "cgroup2"] {
        let dir = "/tmp/attack-cgroup";
        let _ = fs::create_dir_all(dir);
        let args = [text(Some("none")), text(Some(dir)), text(Some(version)), 0, 0];
        answer(&format!("mount -t {version}"), call(Entry::Native, sys::MOUNT, &args));
        for name in ["release_agent", "notify_on_release", "devices.allow", "tasks"] {
            let path = format!("{dir}/{name}");
            if Path::new(&path).exists() {
                refused(&format!("write {path}"), write_existing(&path, "a"));
            }
        }
        let above = format!("{dir}/../cgroup.procs");
        if Path::new(&above).exists() {
            breach("a cgroup above the container's is visible");
        }
        let _ = call(Entry::Native, sys::UMOUNT2, &[text(Some(dir)), 2]);
    }
}
