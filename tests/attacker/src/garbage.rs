//! What could crash, block or confuse the daemons: addresses that lead nowhere, endless strings, paths
//! with thousands of parts, storms of calls, random calls.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::report::{answer, breach, refused};
use crate::sys::{self, Answer, CWD, Entry, call, raw, text};

/// A mapping of this many bytes without a zero among them.
fn endless() -> (u64, usize) {
    const SIZE: usize = 4 << 20;
    let bytes = vec![b'a'; SIZE].leak();
    (bytes.as_ptr() as u64, SIZE)
}

/// Requests that no honest program makes, one by one.
pub fn malformed() {
    let (long, size) = endless();
    let end_of_memory = long + size as u64 - 8;
    let deep = format!("/{}", "tmp/../".repeat(580));
    let deepest = "/.".repeat(2047);
    let symbols = format!("/tmp/{}", "\\040\n\t:,".repeat(200));
    let (proc, tmp) = (text(Some("proc")), text(Some("/tmp")));
    let options = text(Some(&"hidepid=1,".repeat(4000)));
    let bad = [0, 1, 8, 0xdead_0000, 0x7fff_ffff_f000, 1 << 63, u64::MAX, u64::MAX - 4095];
    for address in bad.into_iter().chain([long, end_of_memory]) {
        for entry in [Entry::Native, Entry::I386, Entry::X32] {
            let low = if entry == Entry::I386 { address & 0xffff_ffff } else { address };
            for position in 0..5 {
                let mut args = [proc, tmp, proc, 0, 0];
                args[position] = low;
                // Flags of garbage are another test's; a mount may come of it.
                if position != 3 {
                    let result = call(entry, sys::MOUNT, &args);
                    told(&format!("mount, argument {position} at {low:#x} ({entry:?})"), result);
                }
            }
            told("umount2", call(entry, sys::UMOUNT2, &[low, 0]));
            told("fsopen", call(entry, sys::FSOPEN, &[low, 0]));
            told("mknodat", call(entry, sys::MKNODAT, &[CWD, low, 0o20666, 0x103]));
        }
    }
    for path in
        [deep, deepest, symbols, "/".repeat(4095), "a".repeat(4095), "/proc/self/fd/".into()]
    {
        let path_at = text(Some(&path));
        told(
            "mount on a strange path",
            call(Entry::Native, sys::MOUNT, &[proc, path_at, proc, 0, 0]),
        );
        told("umount of it", call(Entry::Native, sys::UMOUNT2, &[path_at, 0]));
        told("mknod of it", call(Entry::Native, sys::MKNODAT, &[CWD, path_at, 0o20666, 0x103]));
    }
    refused("40 kB of options", call(Entry::Native, sys::MOUNT, &[proc, tmp, proc, 0, options]));
    // A chain of links that leads nowhere, and links into the links of procfs.
    let _ = std::os::unix::fs::symlink("/tmp/loop", "/tmp/loop");
    for link in ["/tmp/loop", "/proc/self/exe", "/proc/1/exe", "/proc/1/root/tmp/loop"] {
        let at = text(Some(link));
        refused(link, call(Entry::Native, sys::MOUNT, &[proc, at, proc, 0, 0]));
    }
    clear();
}

fn told(what: &str, result: Answer) {
    answer(what, result);
    clear();
}

/// Takes off what was mounted on /tmp.
fn clear() {
    while call(Entry::Native, sys::UMOUNT2, &[text(Some("/tmp")), 2]).is_ok() {}
}

/// Virtualised files, used as no program uses them.
pub fn files() {
    let big = vec![b'9'; 8 << 20];
    for path in ["/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/cpuinfo", "/proc/loadavg"] {
        let file = fs::File::open(path).expect("opening a virtualised file");
        let mut buffer = vec![0; 1 << 20];
        for offset in [0, 1, 4096, 1 << 31, 1 << 40, i64::MAX as u64 - 4096] {
            answer(&format!("pread {path} at {offset}"), file.read_at(&mut buffer, offset).is_ok());
        }
        refused("write 8 MB", fs::write(path, &big));
        refused("truncate", file.set_len(0));
        refused("remove", fs::remove_file(path));
        refused("rename", fs::rename(path, "/proc/other"));
        refused("link", fs::hard_link(path, "/proc/other"));
        refused("chown", std::os::unix::fs::chown(path, Some(1), Some(1)));
        // SAFETY: numbers only; an unknown request stores nothing.
        let ioctl = unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&file), 0x1234_5678, 0) };
        answer("ioctl", ioctl);
        let many: Vec<_> = (0..200).map_while(|_| fs::File::open(path).ok()).collect();
        answer("opened at once", many.len());
    }
}

/// The next number of a xorshift generator: the same numbers for the same seed.
fn random(state: &AtomicU64) -> u64 {
    let mut x = state.load(Ordering::Relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state.store(x, Ordering::Relaxed);
    x
}

/// Random calls of the mount family for so long, in a mount namespace of its own.
pub fn fuzz(seed: u64, time: Duration) {
    let state = AtomicU64::new(seed | 1);
    let next = |below: usize| (random(&state) % below as u64) as usize;
    answer("unshare", call(Entry::Native, sys::UNSHARE, &[0x0002_0000]));
    let _ = fs::create_dir_all("/tmp/f/a/b");
    let places =
        ["/tmp/f", "/tmp/f/a", "/tmp/f/a/b", "/proc", "/sys", "/", "/proc/sys", "/proc/meminfo"]
            .map(|place| text(Some(place)));
    let kinds =
        ["proc", "sysfs", "tmpfs", "debugfs", "cgroup2", "overlay", "devpts", "mqueue", "x"]
            .map(|kind| text(Some(kind)));
    let options =
        ["", "hidepid=2", "subset=pid", "ro", "gid=5", "lowerdir=/tmp/f:/proc", "mode=755"]
            .map(|options| text(Some(options)));
    let calls = [
        sys::MOUNT,
        sys::UMOUNT2,
        sys::OPEN_TREE,
        sys::MOVE_MOUNT,
        sys::FSOPEN,
        sys::FSCONFIG,
        sys::FSMOUNT,
        sys::FSPICK,
        sys::MKNODAT,
    ];
    let end = Instant::now() + time;
    let (mut made, mut succeeded) = (0_u64, 0_u64);
    while Instant::now() < end {
        let name = calls[next(calls.len())];
        let entry = [Entry::Native, Entry::I386, Entry::X32][next(8) / 3];
        let mut args = [0_u64; 6];
        for arg in &mut args {
            *arg = match next(8) {
                0 => places[next(places.len())],
                1 => kinds[next(kinds.len())],
                2 => options[next(options.len())],
                3 => 1 << next(32),
                4 => next(64) as u64,
                5 => CWD,
                6 => 0,
                _ => random(&state),
            };
        }
        if name.name == "mount" && next(4) > 0 {
            args[1] = places[next(3)];
            args[2] = kinds[next(kinds.len())];
            args[3] = [0, 0, 1, 0xe, 0x1000, 0x5000, 0x2000, 0x20, 1 << 18, 1 << 20][next(10)];
            args[4] = options[next(options.len())];
        } else if name.name == "umount2" && next(4) > 0 {
            args[0] = places[next(3)];
            args[1] = [0, 0, 1, 2, 4, 8][next(6)];
        } else if matches!(name.name, "fsconfig" | "fsmount") {
            args[0] = 3 + next(60) as u64;
        }
        made += 1;
        succeeded += u64::from(call(entry, name, &args).is_ok());
        if made.is_multiple_of(64) {
            // Descriptors and mounts that came of it.
            // SAFETY: closes descriptors that only the calls above have made.
            unsafe { libc::close_range(3, u32::MAX, 0) };
            while made.is_multiple_of(512)
                && call(Entry::Native, sys::UMOUNT2, &[places[0], 2]).is_ok()
            {}
        }
    }
    answer("random calls made, and succeeded", (made, succeeded));
    let any = raw_garbage(&state);
    answer("calls of the family with nothing but garbage", any);
}

/// Registers full of random bits for the calls that are trapped.
fn raw_garbage(state: &AtomicU64) -> usize {
    let mut ok = 0;
    for number in [libc::SYS_mount, libc::SYS_umount2, libc::SYS_fsopen, libc::SYS_mknodat] {
        for _ in 0..500 {
            let args = [(); 6].map(|()| random(state));
            // SAFETY: these calls write to no memory.
            ok += usize::from(unsafe { raw(Entry::Native, number, args) }.is_ok());
        }
    }
    ok
}

/// Mounts and unmounts for so long, with signals on the way, and checks every result.
pub fn load(time: Duration) {
    const THREADS: usize = 2;
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: a handler that does nothing, for a signal that is not used otherwise.
    unsafe { libc::signal(libc::SIGURG, handler as libc::sighandler_t) };
    let end = Instant::now() + time;
    let rounds = AtomicU64::new(0);
    let ids = [(); THREADS].map(|()| AtomicI32::new(0));
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                // SAFETY: takes nothing, always succeeds.
                id.store(unsafe { libc::gettid() }, Ordering::Relaxed);
                rounds.fetch_add(mount_until(end), Ordering::Relaxed);
            });
        }
        // As a Go program's scheduler does to its threads.
        while Instant::now() < end {
            for id in &ids {
                let own = std::process::id() as libc::pid_t;
                // SAFETY: a signal to a thread of this process, or to none.
                unsafe {
                    libc::syscall(libc::SYS_tgkill, own, id.load(Ordering::Relaxed), libc::SIGURG)
                };
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    });
    answer("rounds", rounds.load(Ordering::Relaxed));
}

/// One thread's part; returns how many mounts it made.
fn mount_until(end: Instant) -> u64 {
    // SAFETY: takes nothing, always succeeds.
    let dir = format!("/tmp/load-{}", unsafe { libc::gettid() });
    fs::create_dir_all(&dir).expect("a directory to mount on");
    let at = text(Some(&dir));
    let kinds = ["proc", "sysfs", "tmpfs"].map(|kind| (kind, text(Some(kind))));
    let mut rounds = 0;
    while Instant::now() < end {
        for (kind, name) in kinds {
            let mounted = call(Entry::Native, sys::MOUNT, &[name, at, name, 0, 0]);
            let right = kind != "proc" || is_own_proc(&dir);
            let gone = call(Entry::Native, sys::UMOUNT2, &[at, 0]);
            if mounted.is_err() || gone.is_err() || !right {
                breach(&format!("{kind}: mount {mounted:?}, right {right}, umount {gone:?}"));
                return rounds;
            }
            rounds += 1;
        }
    }
    rounds
}

/// Whether a proc shows this process and the container's memory.
fn is_own_proc(dir: &str) -> bool {
    let own = std::process::id().to_string();
    let same = || {
        let first = |file: &str| Some(fs::read_to_string(file).ok()?.lines().next()?.to_owned());
        let (here, there) = (first("/proc/meminfo"), first(&format!("{dir}/meminfo")));
        here.is_some() && here == there
    };
    fs::read_link(format!("{dir}/self")).is_ok_and(|link| link.to_str() == Some(&own)) && same()
}
