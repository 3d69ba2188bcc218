//! A host of its own for each test: directories, daemon, `sysbox-fs`.

use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sysbox_ipc::proto;

use crate::client::Client;
use crate::fake_fs::{self, Containers};

/// See the module documentation.
pub struct Host {
    dir: tempfile::TempDir,
    tmpfs: tempfile::TempDir,
    daemon: Option<Child>,
    /// More flags for the daemon.
    pub flags: &'static [&'static str],
    /// What `sysbox-fs` knows.
    pub fs: Containers,
}

impl Host {
    /// A host on which both daemons run.
    pub fn new() -> Self {
        let mut host = Self::without_daemon();
        host.fs = fake_fs::start(&host.run_dir());
        host.start();
        host
    }

    /// A host on which nothing runs yet.
    pub fn without_daemon() -> Self {
        // On a real file system: volumes keep extended attributes and device nodes.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(dir.path().join("subuid"), "me:100000:65536\n").unwrap();
        fs::write(dir.path().join("subgid"), "me:100000:65536\n").unwrap();
        let tmpfs = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { dir, tmpfs, daemon: None, flags: &[], fs: Containers::default() }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The daemon's command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sysbox-mgr"));
        let flags = ["run-dir:run", "data-root:data", "subuid-file:subuid", "subgid-file:subgid"];
        for (flag, name) in flags.map(|f| f.split_once(':').unwrap()) {
            command.arg(format!("--{flag}")).arg(self.path(name));
        }
        command.args(self.flags).args(["--log-level", "debug"]).stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same, with more arguments.
    pub fn start_with(&mut self, arguments: &[&str]) {
        self.start_in(&[], arguments);
    }

    /// The same, with variables in its environment.
    pub fn start_in(&mut self, variables: &[(&str, &str)], arguments: &[&str]) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.daemon = Some(
            self.command()
                .args(arguments)
                .envs(variables.iter().copied())
                .stderr(log)
                .process_group(0)
                .spawn()
                .unwrap(),
        );
        self.wait("the daemon to answer", || {
            sysbox_ipc::Connection::connect(&self.socket()).is_ok()
        });
    }

    /// Takes a daemon that was started in another way.
    pub fn adopt(&mut self, daemon: Child) {
        self.daemon = Some(daemon);
    }

    /// Waits for the end of a daemon that dies by itself.
    pub fn reap(&mut self) {
        self.daemon.take().unwrap().wait().unwrap();
    }

    /// Ends the daemon by a signal and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), signal).unwrap();
        daemon.wait().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("sysmgr.sock")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// State of a container as the daemon tells it.
    pub fn state(&self, id: &str) -> Option<String> {
        let status = self.client().status();
        status.containers.into_iter().find(|c| c.id == id).map(|c| c.state)
    }

    /// A plain root file system, and a request for it.
    pub fn request(&self, id: &str) -> proto::Register {
        let rootfs = self.path(&format!("rootfs-{id}"));
        fs::create_dir_all(&rootfs).unwrap();
        proto::Register {
            id: id.into(),
            rootfs: rootfs.to_str().unwrap().into(),
            inner_stores: true,
            ..Default::default()
        }
    }

    /// The same for a container with Docker, on a tmpfs: an overlay could not write there, so its store
    /// is a volume of ours.
    pub fn request_with_volume(&self, id: &str) -> proto::Register {
        let rootfs = self.tmpfs.path().join(id);
        fs::create_dir_all(rootfs.join("var/lib/docker")).unwrap();
        let rootfs = rootfs.to_str().unwrap().into();
        proto::Register { rootfs, ..self.request(id) }
    }

    /// Registers and commits a container whose init is a new process.
    pub fn run(&self, request: &proto::Register) -> (proto::Registered, Init) {
        let (registered, _userns, init) = self.run_in(request, None);
        (registered, init)
    }

    /// The same, for a container that may join a user namespace; returns the one that it is in.
    pub fn run_in(
        &self,
        request: &proto::Register,
        joined: Option<BorrowedFd<'_>>,
    ) -> (proto::Registered, OwnedFd, Init) {
        let client = self.client();
        let (registered, userns) = client.register_in(request, joined).unwrap();
        let init = Init::start(Command::new("sleep").arg("1000"));
        client.commit(&request.id, init.pid()).unwrap();
        (registered, userns, init)
    }

    /// Waits for something that happens soon.
    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !done() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("waited in vain for {what}; log of the daemon:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Records on disk, by file name.
    pub fn records(&self) -> Vec<String> {
        names(&self.path("data/containers"))
    }

    /// Names in the directory of the volumes, without the trash.
    pub fn volumes(&self) -> Vec<String> {
        names(&self.path("data/volumes")).into_iter().filter(|n| !n.starts_with('@')).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A process that stands for a container's init; killed when dropped.
pub struct Init(Child);

impl Init {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it.
    pub fn kill(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
