//! What the tests with the real daemon share: a place for it, a client, cgroups.
#![allow(dead_code)] // every test file uses its part of it

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use sysbox_ipc::proto::fs_reply::Result as Answer;
pub use sysbox_ipc::proto::fs_request::Call;
use sysbox_ipc::proto::{AddContainer, CgroupPaths};
use sysbox_ipc::{Connection, PROTOCOL};

/// A mount namespace and a run directory, in which daemons come and go.
pub struct Place {
    pub run_dir: tempfile::TempDir,
    pub anchor: Child,
    /// Kernel interfaces that the daemons do without.
    pub without: &'static str,
}

impl Place {
    pub fn new() -> Self {
        let run_dir = tempfile::tempdir().unwrap();
        let mut anchor = Command::new("unshare");
        anchor.args(["--mount", "--propagation", "private", "sleep", "300"]);
        let anchor = anchor.stdin(Stdio::null()).spawn().unwrap();
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        wait("a mount namespace", || namespace(anchor.id()) != namespace(std::process::id()));
        Self { run_dir, anchor, without: "" }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.anchor.id()));
        command.arg(env!("CARGO_BIN_EXE_sysbox-fs")).arg("--run-dir").arg(self.run_dir.path());
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command.env("SYSBOX_WITHOUT", self.without);
        command
    }

    /// A shell in the namespace; `$0` is the daemon's program, `$1` the run directory.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.anchor.id()));
        command.args(["sh", "-euc", script, env!("CARGO_BIN_EXE_sysbox-fs")]);
        command.arg(self.run_dir.path());
        command
    }

    pub fn start(&self) -> Daemon {
        self.start_with(self.command())
    }

    pub fn start_with(&self, mut command: Command) -> Daemon {
        let child = command.spawn().unwrap();
        let path = self.run_dir.path().join("sysfs.sock");
        wait("the daemon", || connects(&path));
        Daemon { child, connection: Connection::connect(&path).unwrap() }
    }

    /// A path of the namespace, reachable from here.
    pub fn path(&self, path: &str) -> PathBuf {
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

pub struct Daemon {
    pub child: Child,
    pub connection: Connection,
}

impl Daemon {
    pub fn call(&self, call: Call) -> Answer {
        let request = sysbox_ipc::proto::FsRequest { protocol: PROTOCOL, call: Some(call) };
        self.connection.send(&request, &[]).unwrap();
        let reply = self.connection.receive::<sysbox_ipc::proto::FsReply>().unwrap().unwrap();
        reply.message.result.unwrap()
    }

    pub fn add(&self, container: AddContainer) -> (String, Vec<String>) {
        match self.call(Call::AddContainer(container)) {
            Answer::Added(added) => (added.emulated_dir, added.emulated_files),
            other => panic!("{other:?}"),
        }
    }

    pub fn remove(&self, id: &str) {
        let call = sysbox_ipc::proto::RemoveContainer { id: id.into() };
        assert!(matches!(self.call(Call::RemoveContainer(call)), Answer::Ok(_)));
    }

    pub fn terminate(mut self) {
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

/// Directories of a cgroup made for a test, removed at its end.
pub struct Cgroup {
    pub dirs: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// A cgroup in every v1 hierarchy that matters here and in the v2 one.
    pub fn new(name: &str) -> Self {
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

    pub fn set(&self, controller: &str, v1: (&str, &str), v2: (&str, &str)) {
        let v1_dir = self.dirs.iter().find(|(c, _)| c == controller);
        let (dir, (file, value)) = match v1_dir {
            Some((_, dir)) => (dir, v1),
            None => (&self.dirs[0].1, v2),
        };
        fs::write(dir.join(file), value).unwrap();
    }

    pub fn paths(&self) -> CgroupPaths {
        let path = |dir: &PathBuf| dir.to_str().unwrap().to_owned();
        CgroupPaths {
            unified: path(&self.dirs[0].1),
            v1: self.dirs[1..].iter().map(|(c, dir)| (c.clone(), path(dir))).collect(),
        }
    }

    /// A cgroup below this one, in every hierarchy.
    pub fn inner(&self) -> Self {
        let inner = |(controllers, dir): &(String, PathBuf)| {
            let _ = fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu");
            let dir = dir.join("inner");
            fs::create_dir(&dir).unwrap();
            (controllers.clone(), dir)
        };
        Self { dirs: self.dirs.iter().map(inner).collect() }
    }

    /// A shell that runs inside this cgroup.
    pub fn shell(&self, script: &str) -> Command {
        let enter =
            |(_, dir): &(String, PathBuf)| format!("echo 0 > {}/cgroup.procs\n", dir.display());
        let mut shell = Command::new("sh");
        shell.arg("-euc").arg(self.dirs.iter().map(enter).collect::<String>() + script);
        shell
    }

    pub fn output(&self, script: &str) -> String {
        let output = self.shell(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{script}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for (_, dir) in &self.dirs {
            wait_quietly(|| fs::remove_dir(dir).is_ok());
        }
    }
}

/// Whether somebody listens on a socket.
pub fn connects(path: &Path) -> bool {
    Connection::connect(path).is_ok()
}

pub fn wait_quietly(done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

pub fn wait(what: &str, done: impl Fn() -> bool) {
    assert!(wait_quietly(done), "waited in vain for {what}");
}

pub fn boottime() -> u64 {
    sysbox_fs::view::host::boottime()
}

pub fn container(id: &str, key: u32, cgroup: &Cgroup) -> AddContainer {
    AddContainer {
        id: id.into(),
        key,
        uid: 231072,
        gid: 231073,
        cgroups: Some(cgroup.paths()),
        created_boottime_ns: boottime() - 60_000_000_000,
        lifetime: format!("root of {id}"),
    }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether a file is one that containers write.
pub fn is_setting(file: &str) -> bool {
    let row = sysbox_fs::table::rows().find(|row| row.path == file).unwrap();
    matches!(row.source, sysbox_fs::table::Source::Setting(_))
}

/// Whether a file takes pressure triggers.
pub fn is_pressure(file: &str) -> bool {
    file.starts_with("proc/pressure/")
}
