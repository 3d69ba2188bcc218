//! Pressure triggers: poll(2) wakes who asked for it. Needs root, and a kernel that counts pressure.

mod support;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use support::{Cgroup, Place, container, is_root};

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// What poll(2) says within so many seconds.
fn polled(file: &File, seconds: i64) -> PollFlags {
    let mut polled = [PollFd::new(file, PollFlags::PRI)];
    poll(&mut polled, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap();
    polled[0].revents()
}

fn errno(result: io::Result<()>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn a_trigger_goes_off_when_tasks_wait() {
    if !is_root() {
        return;
    }
    if !Path::new("/proc/pressure/cpu").exists() {
        eprintln!("cannot run: the kernel counts no pressure (psi=1 on its command line)");
        return;
    }
    let (place, busy, idle) = (Place::new(), Cgroup::new("pressed"), Cgroup::new("idle"));
    let daemon = place.start();
    let path = |id, key, cgroup| place.path(&daemon.add(container(id, key, cgroup)).0);
    let (busy_dir, idle_dir) = (path("busy", 1, &busy), path("idle", 2, &idle));
    let mut watched = open(&busy_dir.join("proc/pressure/cpu"));
    let mut quiet = open(&idle_dir.join("proc/pressure/cpu"));
    assert_eq!(polled(&watched, 5), PollFlags::PRI | PollFlags::ERR, "without a trigger");
    assert_eq!(errno(watched.write_all(b"much 1 2")), Some(Errno::INVAL));
    assert_eq!(errno(watched.write_all(b"some 600000000 2000000")), Some(Errno::INVAL));
    for file in [&mut watched, &mut quiet] {
        file.write_all(b"some 20000 2000000").unwrap();
        assert_eq!(errno(file.write_all(b"some 20000 2000000")), Some(Errno::BUSY), "a second one");
    }

    // More tasks than CPUs.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut burners: Vec<_> =
        (0..2 * cpus).map(|_| busy.shell("while :; do :; done").spawn().unwrap()).collect();
    let woken = polled(&watched, 30);
    // Once more: it is not told twice of one event, but of the next one.
    let again = polled(&watched, 30);
    for burner in &mut burners {
        burner.kill().unwrap();
        burner.wait().unwrap();
    }
    assert_eq!((woken, again), (PollFlags::PRI, PollFlags::PRI));
    assert_eq!(polled(&quiet, 0), PollFlags::empty(), "nothing waits in the other container");

    // A container can make so many, and has room again when they are closed.
    let many = || -> Vec<_> {
        let files = (0..20).map(|_| open(&idle_dir.join("proc/pressure/memory")));
        files.map(|mut file| (errno(file.write_all(b"full 50000 2000000")), file)).collect()
    };
    for _ in 0..2 {
        let made = many();
        assert_eq!(made.iter().filter(|(error, _)| error.is_none()).count(), 15);
        assert!(made.iter().skip(15).all(|(error, _)| *error == Some(Errno::NOSPC)));
    }
    for id in ["busy", "idle"] {
        daemon.remove(id);
    }
    daemon.terminate();
}
