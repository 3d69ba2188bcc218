//! Many callers, dying callers, callers that change their memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Signal, pidfd_send_signal};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process, exit_now, wait_pidfd};

use super::cases::{Case, assert_proc, mounts_at, read, try_mount, umount};

pub const CASES: [Case; 4] = [
    Case { hangs: true, ..Case::new("a_path_that_hangs_hangs_its_caller_only", hanging_path) },
    Case::new("eight_threads_mount_and_unmount", threads).on_all_kernels(),
    Case::new("callers_are_killed_in_the_middle", killed).on_all_kernels(),
    Case::new("the_path_changes_while_it_is_read", changing_path),
];

const TIME: Duration = Duration::from_secs(3);

fn threads() {
    let end = Instant::now() + TIME;
    let work = |number: usize| {
        let dir = format!("/tmp/{number}");
        fs::create_dir(&dir).expect("mkdir");
        let mut rounds = 0;
        while Instant::now() < end {
            let kind = ["proc", "sysfs", "debugfs", "tmpfs"][(number + rounds) % 4];
            assert_eq!(try_mount(kind, &dir, 0, ""), Ok(()), "{kind}");
            if kind == "proc" {
                assert_proc(&dir);
            }
            assert_eq!(umount(&dir), Ok(()), "{kind}");
            rounds += 1;
        }
        rounds
    };
    let rounds: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|t| t.join().expect("a thread")).sum()
    });
    assert_eq!(mounts_at("/tmp"), 0);
    assert!(rounds > 100, "{rounds} rounds");
}

fn killed() {
    let end = Instant::now() + TIME;
    let mut delay = 0;
    while Instant::now() < end {
        delay = (delay + 37) % 1500;
        match clone_process(CloneFlags::NONE).expect("clone") {
            // The call of the caller that was killed before may still be going on, or be taken
            // back, at the same place; that is soon over.
            Fork::Child => loop {
                if !soon(|| try_mount("proc", "/m", 0, "")) || !soon(|| umount("/m")) {
                    exit_now(1);
                }
            },
            Fork::Parent { pidfd, .. } => {
                thread::sleep(Duration::from_micros(delay));
                pidfd_send_signal(&pidfd, Signal::KILL).expect("kill");
                assert_eq!(wait_pidfd(pidfd).expect("waiting"), 137, "not by an error");
            }
        }
        // What is left is a whole mount of a call that was done, or none. An undo may still run.
        let settled = Instant::now() + Duration::from_secs(2);
        while !matches!(mounts_at("/m"), 0 | 4) {
            assert!(Instant::now() < settled, "{} mounts left", mounts_at("/m"));
        }
        let _ = unmount("/m", UnmountFlags::DETACH);
    }
    thread::sleep(Duration::from_millis(100));
    while unmount("/m", UnmountFlags::DETACH).is_ok() {}
    assert_eq!(mounts_at("/m"), 0);
}

/// Whether something works within two seconds.
fn soon<E>(mut attempt: impl FnMut() -> Result<(), E>) -> bool {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match attempt() {
            Ok(()) => return true,
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
}

fn changing_path() {
    // Two paths of the same length, one of which leads into a proc that is not to be covered.
    fs::create_dir("/tmp/aaaa").expect("mkdir");
    let target = b"/tmp/aaaa\0".to_vec();
    let address = target.as_ptr() as u64;
    let stop = AtomicBool::new(false);
    let memory = File::options().write(true).open("/proc/self/mem").expect("memory");
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut paths = [&b"/proc/tty"[..], b"/tmp/aaaa", b"/none/xxx"].into_iter().cycle();
            while !stop.load(Ordering::Relaxed) {
                let path = paths.next().expect("endless");
                memory.write_all_at(path, address).expect("write");
            }
        });
        let path = std::ffi::CStr::from_bytes_with_nul(&target).expect("text");
        let end = Instant::now() + TIME;
        let mut mounted = 0;
        while Instant::now() < end {
            match mount("name", path, "proc", MountFlags::empty(), None) {
                Ok(()) => {
                    // Wherever it went, it is whole.
                    let place = ["/tmp/aaaa", "/proc/tty"].into_iter().find(|p| mounts_at(p) > 0);
                    let place = place.expect("mounted somewhere");
                    assert_proc(place);
                    assert_eq!(mounts_at(place), 4);
                    assert_eq!(umount(place), Ok(()));
                    mounted += 1;
                }
                // The path that does not exist, or the mount on a path that the kernel was asked
                // to look at itself: it refuses.
                Err(Errno::NOENT | Errno::PERM) => {}
                Err(other) => panic!("{other}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(mounted > 0);
    });
    assert_eq!(read("/proc/uptime"), "4242.00 4242.00\n");
}

fn hanging_path() {
    thread::scope(|scope| {
        // One fewer than the broker works on at a time for a container.
        let hanging = [(); 3].map(|()| {
            scope.spawn(|| {
                let start = Instant::now();
                let result = try_mount("proc", "/hang/x", 0, "");
                (result, start.elapsed())
            })
        });
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
            assert_eq!(umount("/m"), Ok(()));
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        for caller in hanging {
            let (result, time) = caller.join().expect("a thread");
            assert_eq!(result, Err(Errno::TIMEDOUT));
            assert!((9..15).contains(&time.as_secs()), "{time:?}");
        }
    });
}
