//! Readers of every kind are served, and none can hold up the daemon. Needs root.

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use support::{Cgroup, Place, container, is_root, is_setting, wait};

/// The state letter of a process.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

fn is_complete(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'))
}

/// Children that go away with the test.
struct Readers(Vec<Child>);

impl Drop for Readers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

#[test]
fn every_way_of_reading_is_as_with_procfs() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("ways"));
    let daemon = place.start();
    let (dir, files) = daemon.add(container("c", 1, &cgroup));
    let dir = place.path(&dir);
    for file in files.iter().filter(|file| !is_setting(file)) {
        // Nothing in it changes while it is open, but at a return to the beginning.
        let mut open = fs::File::open(dir.join(file)).unwrap();
        let mut text = Vec::new();
        open.read_to_end(&mut text).unwrap();
        assert_eq!(open.read(&mut [0; 8]).unwrap(), 0, "{file}");
        let end = text.len() as u64;
        assert_eq!(open.read_at(&mut [0; 8], end + 4096).unwrap(), 0, "{file}: beyond its end");
        assert_eq!(open.seek(SeekFrom::Start(3)).unwrap(), 3, "{file}");
        if text.len() > 8 {
            let mut part = [0; 5];
            assert_eq!(open.read_at(&mut part, 2).unwrap(), 5, "{file}");
        }
        let mut polled = [PollFd::new(&open, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })).unwrap();
        assert!(polled[0].revents().contains(PollFlags::IN), "{file} is ready");
    }
    let path = dir.join("proc/meminfo");
    let direct = OFlags::DIRECT.bits() as i32;
    let mut open = fs::OpenOptions::new().read(true).custom_flags(direct).open(&path).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("MemTotal:"), "O_DIRECT");
    rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::WillNeed).unwrap();
    // mmap(2). (A private mapping is made by the kernel without asking us; touching it is SIGBUS.)
    // Perl comes with what makes our images.
    let number = if cfg!(target_arch = "x86_64") { 9 } else { 222 };
    let script = format!(
        "open F, '<', '{}'; print syscall({number}, 0, 4096, 1, 1, fileno(F), 0) == -1 \
         ? $!{{ENODEV}} ? 'ENODEV' : $! : 'mapped'",
        path.display()
    );
    let output = Command::new("perl").args(["-MErrno", "-e", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ENODEV", "as with procfs");
    daemon.remove("c");
    daemon.terminate();
}

#[test]
fn two_hundred_readers_at_once() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("crowd"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("c", 1, &cgroup));
    let dir = place.path(&dir);
    let names = ["meminfo", "stat", "cpuinfo", "uptime", "loadavg", "vmstat", "swaps"];
    std::thread::scope(|scope| {
        for i in 0..200 {
            let path = dir.join("proc").join(names[i % names.len()]);
            scope.spawn(move || {
                for _ in 0..20 {
                    assert!(is_complete(&path), "{}", path.display());
                }
            });
        }
    });
    daemon.remove("c");
    daemon.terminate();
}

#[test]
fn readers_that_are_killed_or_stopped_hold_up_nobody() {
    if !is_root() {
        return;
    }
    let (place, greedy, modest) = (Place::new(), Cgroup::new("killed-r"), Cgroup::new("alive-r"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("stopped", 1, &greedy));
    let stat: PathBuf = place.path(&dir).join("proc/stat");
    let (dir, _) = daemon.add(container("alive", 2, &modest));
    let alive = place.path(&dir).join("proc/stat");
    let reader = || {
        let mut shell =
            greedy.shell(&format!("while cat {} >/dev/null; do :; done", stat.display()));
        shell.process_group(0).stdin(Stdio::null()).spawn().unwrap()
    };
    // In the middle of whatever they do: opening, reading, waiting.
    for _ in 0..20 {
        let mut killed = Readers((0..4).map(|_| reader()).collect());
        assert!(is_complete(&alive));
        for child in &mut killed.0 {
            kill_process_group(Pid::from_child(child), Signal::KILL).unwrap();
        }
        wait("the killed readers to be dead", || {
            killed.0.iter().all(|child| state(child.id()) == 'Z')
        });
    }
    // As in a paused container; what they have open stays open.
    let stopped = Readers((0..4).map(|_| reader()).collect());
    for child in &stopped.0 {
        kill_process(Pid::from_child(child), Signal::STOP).unwrap();
        wait("a reader to stop", || state(child.id()) == 'T');
    }
    for _ in 0..50 {
        assert!(is_complete(&alive) && is_complete(&stat));
    }
    for child in &stopped.0 {
        kill_process(Pid::from_child(child), Signal::CONT).unwrap();
    }
    wait("them to go on", || stopped.0.iter().all(|child| state(child.id()) != 'T'));
    drop(stopped);
    // A thread whose leader is gone is a reader like any other (the leader is a zombie).
    let number = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
    let script = format!(
        "$| = 1; threads->create(sub {{ sleep 1; open F, '<', '{}'; print scalar <F> }}); \
         syscall({number}, 0)",
        stat.display()
    );
    let output = greedy
        .output(&format!("exec timeout 20 perl -Mthreads -e \"{}\"", script.replace('$', "\\$")));
    assert!(output.starts_with("cpu  "), "{output}");
    for id in ["stopped", "alive"] {
        daemon.remove(id);
    }
    daemon.terminate();
}
