//! How long system calls take in here; scripts/bench-broker compares it with other places.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Instant;

use crate::sys::{self, Entry, call, text};

/// Times mount(2) and umount(2) of new file systems: a line each, microseconds.
pub fn mounts(rounds: usize) {
    fs::create_dir_all("/tmp/bench").expect("a directory to mount on");
    let at = text(Some("/tmp/bench"));
    let mut times = [const { Vec::new() }; 2];
    for (kind, name) in ["tmpfs", "proc", "sysfs"].map(|kind| (kind, text(Some(kind)))) {
        times.iter_mut().for_each(Vec::clear);
        for _ in 0..rounds {
            for (what, times) in times.iter_mut().enumerate() {
                let start = Instant::now();
                let result = match what {
                    0 => call(Entry::Native, sys::MOUNT, &[name, at, name, 0, 0]),
                    _ => call(Entry::Native, sys::UMOUNT2, &[at, 0]),
                };
                times.push(start.elapsed().as_nanos() as u64 / 100);
                result.expect("mounting and unmounting");
            }
        }
        for (what, times) in ["mount", "umount"].iter().zip(&mut times) {
            times.sort_unstable();
            let at = |percent: usize| times[times.len() * percent / 100] as f64 / 10.0;
            println!("{what} {kind} {} {}", at(50), at(99));
        }
    }
}

/// Times calls that the filter sees and no trap looks at: a line each, nanoseconds.
pub fn calls() {
    const ROUNDS: u32 = 500_000;
    let null = fs::File::open("/dev/null").expect("/dev/null");
    let descriptor = null.as_raw_fd();
    // SAFETY: takes nothing.
    time("getppid", ROUNDS, || _ = unsafe { libc::getppid() });
    // SAFETY: a descriptor that is open, and no memory.
    time("fcntl", ROUNDS, || _ = unsafe { libc::fcntl(descriptor, libc::F_GETFL) });
    time("stat", ROUNDS / 4, || drop(fs::metadata("/etc/passwd")));
    time("open-close", ROUNDS / 8, || drop(fs::File::open("/etc/passwd")));
}

fn time(what: &str, rounds: u32, mut work: impl FnMut()) {
    let start = Instant::now();
    (0..rounds).for_each(|_| work());
    println!("{what} {:.1}", start.elapsed().as_nanos() as f64 / f64::from(rounds));
}
