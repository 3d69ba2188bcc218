//! How long the calls take.

use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use super::cases::{Case, try_mount, umount};

pub const CASES: [Case; 1] = [Case { only_on_request: true, ..Case::new("latency", latency) }];

const ROUNDS: usize = 2000;

fn latency() {
    println!();
    for kind in ["proc", "sysfs", "debugfs", "tmpfs"] {
        let mut mounting = Vec::new();
        let mut unmounting = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            try_mount(kind, "/m", 0, "").expect("mount");
            mounting.push(start.elapsed());
            let start = Instant::now();
            umount("/m").expect("umount");
            unmounting.push(start.elapsed());
        }
        print(&format!("mount -t {kind}"), mounting);
        print(&format!("umount of it ({kind})"), unmounting);
    }
    let mut detaching = Vec::new();
    for _ in 0..ROUNDS {
        try_mount("proc", "/m", 0, "").expect("mount");
        let start = Instant::now();
        unmount("/m", UnmountFlags::DETACH).expect("umount");
        detaching.push(start.elapsed());
    }
    print("umount -l of a proc (not trapped)", detaching);
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100];
    println!("  {what:36} p50 {:?}  p99 {:?}", at(50), at(99));
}
