//! The real daemon, in a mount namespace of its own, read from inside a real cgroup. Needs root.

use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sysbox_ipc::proto::{AddContainer, CgroupPaths};
use sysbox_ipc::{Connection, PROTOCOL};

/// A mount namespace and a run directory, in which daemons come and go.
struct Place {
    run_dir: tempfile::TempDir,
    anchor: Child,
}

impl Place {
    fn new() -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let mut anchor = Command::new("unshare");
        anchor.args(["--mount", "--propagation", "private", "sleep", "300"]);
        let anchor = anchor.stdin(Stdio::null()).spawn().unwrap();
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        wait("a mount namespace", || {
            namespace(anchor.id()) != namespace(std::process::id())
        });
        Self { run_dir, anchor }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.anchor.id()));
        command
            .arg(env!("CARGO_BIN_EXE_sysbox-fs"))
            .arg("--run-dir")
            .arg(self.run_dir.path());
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    fn start(&self) -> Daemon {
        let child = self.command().spawn().unwrap();
        let path = self.run_dir.path().join("sysfs.sock");
        wait("the daemon", || Connection::connect(&path).is_ok());
        Daemon {
            child,
            connection: Connection::connect(&path).unwrap(),
        }
    }

    /// A path of the namespace, reachable from here.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.anchor.id()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        sysbox_fs::session::hold::release(self.run_dir.path());
        let _ = self.anchor.kill();
        let _ = self.anchor.wait();
    }
}

struct Daemon {
    child: Child,
    connection: Connection,
}

impl Daemon {
    fn call(&self, call: Call) -> Answer {
        let request = sysbox_ipc::proto::FsRequest {
            protocol: PROTOCOL,
            call: Some(call),
        };
        self.connection.send(&request, &[]).unwrap();
        let reply = self
            .connection
            .receive::<sysbox_ipc::proto::FsReply>()
            .unwrap()
            .unwrap();
        reply.message.result.unwrap()
    }

    fn add(&self, container: AddContainer) -> (String, Vec<String>) {
        match self.call(Call::AddContainer(container)) {
            Answer::Added(added) => (added.emulated_dir, added.emulated_files),
            other => panic!("{other:?}"),
        }
    }

    fn remove(&self, id: &str) {
        let call = sysbox_ipc::proto::RemoveContainer { id: id.into() };
        assert!(matches!(
            self.call(Call::RemoveContainer(call)),
            Answer::Ok(_)
        ));
    }

    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

use sysbox_ipc::proto::fs_reply::Result as Answer;
use sysbox_ipc::proto::fs_request::Call;

/// Directories of a cgroup made for a test, removed at its end.
struct Cgroup {
    dirs: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// A cgroup in every v1 hierarchy that matters here and in the v2 one.
    fn new(name: &str) -> Self {
        let name = format!("sysbox-fs-test-{name}-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let mut dirs = Vec::new();
        if root.join("cgroup.controllers").exists() {
            dirs.push((String::new(), root.join(&name)));
        } else {
            dirs.push((String::new(), root.join("unified").join(&name)));
            for controller in ["memory", "cpu", "pids"] {
                dirs.push((controller.to_owned(), root.join(controller).join(&name)));
            }
        }
        dirs.retain(|(_, dir)| fs::create_dir(dir).is_ok());
        assert!(!dirs.is_empty(), "no cgroup can be made");
        Self { dirs }
    }

    fn set(&self, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
        let v1_dir = self.dirs.iter().find(|(c, _)| c == controller);
        let (dir, (file, value)) = match v1_dir {
            Some((_, dir)) => (dir, v1),
            None => (&self.dirs[0].1, v2),
        };
        fs::write(dir.join(file), value).unwrap();
    }

    fn paths(&self) -> CgroupPaths {
        let path = |dir: &PathBuf| dir.to_str().unwrap().to_owned();
        CgroupPaths {
            unified: path(&self.dirs[0].1),
            v1: self.dirs[1..]
                .iter()
                .map(|(c, dir)| (c.clone(), path(dir)))
                .collect(),
        }
    }

    /// A shell that runs inside this cgroup, `below` for a cgroup v2 below it.
    fn shell(&self, below: &str, script: &str) -> Command {
        let mut text = String::new();
        for (i, (_, dir)) in self.dirs.iter().enumerate() {
            let dir = if i == 0 { dir.join(below) } else { dir.clone() };
            text += &format!("echo 0 > {}/cgroup.procs\n", dir.display());
        }
        let mut shell = Command::new("sh");
        shell.arg("-euc").arg(text + script);
        shell
    }

    fn output(&self, below: &str, script: &str) -> String {
        let output = self
            .shell(below, script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for (_, dir) in &self.dirs {
            let _ = fs::remove_dir(dir.join("inner"));
            wait_quietly(|| fs::remove_dir(dir).is_ok());
        }
    }
}

fn wait_quietly(done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn wait(what: &str, done: impl Fn() -> bool) {
    assert!(wait_quietly(done), "waited in vain for {what}");
}

fn boottime() -> u64 {
    sysbox_fs::view::host::boottime()
}

fn container(id: &str, key: u32, cgroup: &Cgroup) -> AddContainer {
    AddContainer {
        id: id.into(),
        key,
        uid: 231072,
        gid: 231073,
        cgroups: Some(cgroup.paths()),
        created_boottime_ns: boottime() - 60_000_000_000,
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn kib(meminfo: &str, field: &str) -> u64 {
    let line = meminfo
        .lines()
        .find(|l| l.starts_with(&format!("{field}:")))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn files_tell_of_the_container() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("files"));
    let unlimited = Cgroup::new("unlimited");
    cgroup.set(
        "memory",
        ("memory.limit_in_bytes", "104857600"),
        ("memory.max", "104857600"),
    );
    cgroup.set(
        "cpu",
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.max", "50000 100000"),
    );
    let daemon = place.start();
    let (dir, files) = daemon.add(container("one", 1, &cgroup));
    assert_eq!(daemon.add(container("one", 1, &cgroup)).0, dir);
    let (other_dir, _) = daemon.add(container("two", 2, &unlimited));
    let dir = place.path(&dir);
    assert!(files.contains(&"proc/meminfo".to_owned()));

    // Every file reads fully for every kind of reader, and looks like a file of procfs.
    for file in &files {
        let path = dir.join(file);
        let shown = path.display();
        let text = cgroup.output("", &format!("cat {shown}"));
        // This container touched no disk.
        assert_eq!(text.is_empty(), file == "proc/diskstats", "{file}");
        let small = cgroup.output("", &format!("dd bs=7 status=none if={shown}"));
        assert_eq!(small.lines().count(), text.lines().count(), "{file}");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (231072, 231073));
        assert_eq!(metadata.mode(), 0o100444);
        let writing = fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(writing.raw_os_error(), Some(libc_eacces()), "{file}");
    }

    let meminfo = cgroup.output("", &format!("cat {}", dir.join("proc/meminfo").display()));
    assert_eq!(kib(&meminfo, "MemTotal"), 102400);
    assert!(kib(&meminfo, "MemFree") <= 102400);
    let native = fs::read_to_string("/proc/meminfo").unwrap();
    let names = |text: &str| {
        text.lines()
            .map(|l| l.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&meminfo), names(&native));

    let cpus = fs::read_to_string(dir.join("sys/devices/system/cpu/online")).unwrap();
    assert_eq!(cpus, "0\n");
    let cpuinfo = fs::read_to_string(dir.join("proc/cpuinfo")).unwrap();
    assert_eq!(cpuinfo.matches("processor\t:").count(), 1);
    let stat = fs::read_to_string(dir.join("proc/stat")).unwrap();
    assert_eq!(stat.matches("cpu").count(), 2, "{stat}");
    let uptime = fs::read_to_string(dir.join("proc/uptime")).unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((60.0..90.0).contains(&seconds), "{uptime}");

    // Without limits: the host's size.
    let other = place.path(&other_dir).join("proc/meminfo");
    assert_eq!(
        kib(&fs::read_to_string(other).unwrap(), "MemTotal"),
        kib(&native, "MemTotal")
    );

    // A limit that changes is seen at the next reading, also by a reader that goes back.
    let mut open = fs::File::open(dir.join("proc/meminfo")).unwrap();
    cgroup.set(
        "memory",
        ("memory.limit_in_bytes", "209715200"),
        ("memory.max", "209715200"),
    );
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(
        kib(&text, "MemTotal"),
        102400,
        "the text of an open file does not change"
    );
    open.rewind().unwrap();
    text.clear();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(kib(&text, "MemTotal"), 204800, "going back makes a new one");

    // Removed containers are gone, the others are not.
    daemon.remove("one");
    assert!(fs::read_to_string(dir.join("proc/meminfo")).is_err());
    daemon.remove("one");
    daemon.remove("two");
    daemon.terminate();
    assert!(!place.run_dir.path().join("sysfs-hold.sock").exists());
}

#[test]
fn cpu_time_never_goes_backwards_and_adds_up() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("cpu"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("busy", 9, &cgroup));
    let path = place.path(&dir).join("proc/stat");
    let read = || -> Vec<u64> {
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().next().unwrap();
        line.split_whitespace()
            .skip(1)
            .map(|n| n.parse().unwrap())
            .collect()
    };
    let mut burner = cgroup.shell("", "while :; do :; done").spawn().unwrap();
    let mut last = read();
    let first = last.clone();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let next = read();
        assert!(
            last.iter().zip(&next).all(|(a, b)| a <= b),
            "{last:?} then {next:?}"
        );
        last = next;
    }
    burner.kill().unwrap();
    burner.wait().unwrap();
    let busy: u64 = (0..3).map(|i| last[i] - first[i]).sum();
    let all: u64 = (0..4).map(|i| last[i] - first[i]).sum();
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    // Two seconds of ticks on each CPU. The burner may have had to wait for other work.
    assert!((20..=230).contains(&busy), "{busy}");
    assert!((all).abs_diff(200 * cpus) <= 40 * cpus, "{all}");
    daemon.remove("busy");
    daemon.terminate();
}

#[test]
fn files_outlive_a_killed_daemon() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("killed"));
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("lasting", 3, &cgroup));
    let path = place.path(&dir).join("proc/meminfo");
    let mut early = fs::File::open(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();

    // Again and again, with readers at work all the time: nobody sees more than a pause.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut passes = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let text = fs::read_to_string(&path).unwrap();
                        assert!(
                            text.starts_with("MemTotal:") && text.ends_with('\n'),
                            "{text}"
                        );
                        passes += 1;
                    }
                    passes
                })
            })
            .collect();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            daemon.child.kill().unwrap();
            daemon.child.wait().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            daemon = place.start();
        }
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 5));
    });

    // A file that was opened before, the mount and the inode numbers are what they were.
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("MemTotal:"));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    let Answer::Status(status) = daemon.call(Call::Status(Default::default())) else {
        panic!()
    };
    assert_eq!(status.containers, ["lasting"]);

    // A second daemon is refused and says who is there.
    let second = place.command().output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(
        error.contains(&format!("pid {}", daemon.child.id())),
        "{error}"
    );

    // A planned end leaves the files to the next daemon, too.
    daemon.terminate();
    let reader = std::thread::spawn(move || fs::read_to_string(path).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    let daemon = place.start();
    assert!(reader.join().unwrap().starts_with("MemTotal:"));
    daemon.remove("lasting");
    daemon.terminate();
}

#[test]
fn a_dead_mount_is_replaced() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("dead"));
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("c", 4, &cgroup));
    // Nobody keeps the device any more: the mount is dead.
    sysbox_fs::session::hold::release(place.run_dir.path());
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let path = place.path(&dir).join("proc/uptime");
    wait("the end of the mount", || {
        fs::read_to_string(&path).is_err()
    });
    let daemon = place.start();
    assert!(fs::read_to_string(&path).unwrap().contains(' '));
    daemon.remove("c");
    daemon.terminate();
}

/// EACCES, the same on every architecture.
fn libc_eacces() -> i32 {
    rustix::io::Errno::ACCESS.raw_os_error()
}
