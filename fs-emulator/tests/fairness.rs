//! One container that asks for ever does not slow another. Needs root.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Cgroup, Place, container, is_root};

/// Times of opening, reading and closing, in order.
fn times(path: &Path, passes: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..passes)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            let begun = Instant::now();
            assert!(!fs::read(path).unwrap().is_empty());
            begun.elapsed()
        })
        .collect();
    times.sort();
    times
}

#[test]
fn fifty_endless_loops_do_not_slow_another_container() {
    if !is_root() {
        return;
    }
    let (place, greedy, modest) = (Place::new(), Cgroup::new("greedy"), Cgroup::new("modest"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("greedy", 1, &greedy));
    let loops = format!(
        "i=0; while [ $i -lt 50 ]; do i=$((i + 1))
             (while :; do while read -r line; do :; done < {file}; done) 2>/dev/null &
         done; wait",
        file = place.path(&dir).join("proc/loadavg").display()
    );
    let (dir, _) = daemon.add(container("modest", 2, &modest));
    let path = place.path(&dir).join("proc/stat");
    times(&path, 100);
    let alone = times(&path, 1000);

    let mut command = greedy.shell(&loops);
    let mut readers =
        std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let beside = times(&path, 1000);
    let group = rustix::process::Pid::from_child(&readers);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    readers.wait().unwrap();

    let at = |times: &[Duration], percent: usize| times[times.len() * percent / 100];
    let ratio = |percent| at(&beside, percent).as_secs_f64() / at(&alone, percent).as_secs_f64();
    eprintln!(
        "alone p50 {:?} p99 {:?}; beside p50 {:?} p99 {:?}: ratios {:.1} and {:.1}",
        at(&alone, 50),
        at(&alone, 99),
        at(&beside, 50),
        at(&beside, 99),
        ratio(50),
        ratio(99)
    );
    // Fifty processes want the CPUs too, which no line of ours can change: hence some room.
    assert!(ratio(50) < 10.0, "p50 {:.1} times as long", ratio(50));
    assert!(
        ratio(99) < 10.0 || at(&beside, 99) < Duration::from_millis(20),
        "p99 {:.1} times as long",
        ratio(99)
    );
    for id in ["greedy", "modest"] {
        daemon.remove(id);
    }
    daemon.terminate();
}
