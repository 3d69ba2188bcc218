//! A file that is read in parts is of one moment, though daemons die meanwhile. Needs root.

mod support;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sysbox_fs::session::hold;
use sysbox_ipc::store;

use support::{Cgroup, Daemon, Place, container, is_root};

/// Files with texts that soon change, and such with more than a page.
const FILES: [&str; 6] = ["uptime", "stat", "meminfo", "vmstat", "cpuinfo", "loadavg"];

fn places() -> [Place; 2] {
    let [newer, mut older] = [Place::new(), Place::new()];
    // There, requests are not sent again by the kernel but found in the daemon's journal.
    older.without = "fuse-resend";
    [newer, older]
}

fn killed(mut daemon: Daemon) {
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
}

/// A file that was read in part, and what is left of it.
struct Begun {
    file: File,
    rest: Vec<u8>,
}

impl Begun {
    fn new(path: &Path, read: usize) -> Self {
        let mut file = File::open(path).unwrap();
        let mut beginning = vec![0; read];
        file.read_exact(&mut beginning).unwrap();
        let mut rest = vec![0; 1 << 16];
        let length = file.read_at(&mut rest, read as u64).unwrap();
        rest.truncate(length);
        assert!(rest.ends_with(b"\n"));
        Self { file, rest }
    }

    /// Reads all but the last `leave` bytes of what is left.
    fn go_on(&mut self, leave: usize) {
        let count = self.rest.len().saturating_sub(leave);
        let mut read = vec![0; count];
        self.file.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8(read), String::from_utf8(self.rest.drain(..count).collect()));
    }

    fn end(mut self) {
        let mut read = String::new();
        self.file.read_to_string(&mut read).unwrap();
        assert_eq!(Ok(read), String::from_utf8(self.rest));
    }
}

#[test]
fn what_is_read_in_parts_is_of_one_moment() {
    if !is_root() {
        return;
    }
    for (n, place) in places().iter().enumerate() {
        let cgroup = Cgroup::new(&format!("parts-{n}"));
        let mut daemon = place.start();
        let (dir, _) = daemon.add(container("parts", 1, &cgroup));
        let paths = FILES.map(|name| place.path(&dir).join("proc").join(name));
        let mut whole: Vec<_> = paths.iter().map(|path| File::open(path).unwrap()).collect();
        let mut read = |file: &mut File| file.read(&mut vec![0; 1 << 16]).unwrap();
        assert!(whole.iter_mut().map(&mut read).all(|length| length > 0));
        let mut files: Vec<Begun> = Vec::new();
        for round in 0..6 {
            files.extend(paths.iter().map(|path| Begun::new(path, 1 + round)));
            killed(daemon);
            daemon = place.start();
            // Those that began some rounds ago go on by a part each.
            for (i, file) in files.iter_mut().enumerate() {
                file.go_on([10_000, 5, 4, 300][(i + round) % 4]);
            }
        }
        files.into_iter().for_each(Begun::end);
        // They end where they ended.
        assert!(whole.iter_mut().all(|file| read(file) == 0));
        daemon.remove("parts");
        daemon.terminate();
    }
}

/// As a shell does it, with daemons that die at any instant.
#[test]
fn a_clock_that_is_read_by_bytes_never_goes_back() {
    if !is_root() {
        return;
    }
    for (n, place) in places().iter().enumerate() {
        let cgroup = Cgroup::new(&format!("bytes-{n}"));
        let mut daemon = place.start();
        let (dir, _) = daemon.add(container("bytes", 1, &cgroup));
        let path = place.path(&dir).join("proc/uptime");
        let stop = AtomicBool::new(false);
        let read = || {
            let (mut last, mut rounds) = (0.0, 0);
            while !stop.load(Relaxed) {
                let (mut file, mut text, mut byte) = (File::open(&path).unwrap(), Vec::new(), [0]);
                while file.read(&mut byte).unwrap() > 0 {
                    text.extend(byte);
                }
                let text = String::from_utf8(text).unwrap();
                let now: f64 = text.split(' ').next().unwrap().parse().expect(&text);
                assert!(now >= last && text.ends_with('\n'), "{text:?} after {last}");
                (last, rounds) = (now, rounds + 1);
            }
            rounds
        };
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            for round in 0..30 {
                // Whatever they are doing then.
                std::thread::sleep(Duration::from_micros(4000 + 777 * (round % 7)));
                daemon.child.kill().unwrap();
                daemon.child.wait().unwrap();
                daemon = place.start();
            }
            stop.store(true, Relaxed);
            assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 5));
        });
        daemon.remove("bytes");
        daemon.terminate();
    }
}

/// What was opened before a death and closed after it has given its room back.
#[test]
fn closed_files_leave_nothing() {
    if !is_root() {
        return;
    }
    for (n, place) in places().iter().enumerate() {
        let cgroup = Cgroup::new(&format!("closed-{n}"));
        let mut daemon = place.start();
        let (dir, _) = daemon.add(container("closed", 1, &cgroup));
        let path = place.path(&dir).join("proc/uptime");
        // More than fit into the container's share.
        for round in 0..7 {
            let mut files: Vec<_> = (0..700).map(|_| Begun::new(&path, 3)).collect();
            if round % 2 == 0 {
                killed(daemon);
                // Some are closed while nobody is there, most afterwards.
                files.truncate(650);
                daemon = place.start();
                files.drain(..5).for_each(Begun::end);
            }
        }
        let last = Begun::new(&path, 3);
        killed(daemon);
        daemon = place.start();
        last.end();
        daemon.remove("closed");
        daemon.terminate();
    }
}

/// The memory of the texts that whoever keeps the device has.
fn memory(run_dir: &Path) -> Option<OwnedFd> {
    let (_, found) = store::Store::open(store::Daemon::FS, run_dir).unwrap();
    found.into_iter().find(|(name, _)| name == hold::TEXTS).map(|(_, memory)| memory)
}

#[test]
fn a_memory_that_is_missing_or_damaged_is_no_harm() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("damage"));
    let run_dir = place.run_dir.path();
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("damage", 1, &cgroup));
    let path: PathBuf = place.path(&dir).join("proc/meminfo");
    let (store, _) = store::Store::open(store::Daemon::FS, run_dir).unwrap();
    let damages: [&dyn Fn(); 4] = [
        // As an older daemon leaves it.
        &|| store.release(hold::TEXTS),
        // As a daemon leaves it that means something else by the name.
        &|| {
            store.release(hold::TEXTS);
            store.keep(hold::TEXTS, File::open("/dev/null").unwrap().as_fd()).unwrap();
        },
        &|| {
            let file = File::from(memory(run_dir).unwrap());
            file.write_at(&[0xa5; 3 * 4096], 0).unwrap();
        },
        &|| {
            let file = File::from(memory(run_dir).unwrap());
            file.write_at(&[0xa5; 2 * 4096], 4096).unwrap();
        },
    ];
    for damage in damages {
        let mut files: Vec<_> = (0..50).map(|n| Begun::new(&path, 1 + n)).collect();
        killed(daemon);
        damage();
        daemon = place.start();
        // It is as if they had been opened just now.
        for begun in &mut files {
            let mut text = String::new();
            begun.file.read_to_string(&mut text).unwrap();
            assert!(text.ends_with("kB\n"), "{text:?}");
        }
        // And with the next death all is well again.
        let begun = Begun::new(&path, 20);
        killed(daemon);
        daemon = place.start();
        begun.end();
    }
    daemon.remove("damage");
    daemon.terminate();
}
