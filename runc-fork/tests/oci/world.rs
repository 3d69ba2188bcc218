//! Daemons, directories and command lines of the test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, kill_process};
use sysbox_kernel::ns::{UnshareFlags, unshare};

/// The runtime under test.
const RUNTIME: &str = env!("CARGO_BIN_EXE_sysbox-runc");

/// See the module's documentation.
pub struct World {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl World {
    /// Moves this process into a mount namespace of its own and starts the daemons in it.
    pub fn start() -> Self {
        unshare(UnshareFlags::NEWNS).expect("making a mount namespace");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("making the mounts private");
        let dir = tempfile::Builder::new().prefix("oci").tempdir_in("/var/tmp").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).unwrap();
        for name in ["run", "data", "bundles", "root"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        // Far from what /etc/subuid gives to others.
        for name in ["subuid", "subgid"] {
            fs::write(dir.path().join(name), "sysbox:1500000000:6553600\n").unwrap();
        }
        let mut world = Self { dir, daemons: Vec::new() };
        world.daemon("sysbox-fs", &[], "sysfs.sock");
        let flags = ["data-root:data", "subuid-file:subuid", "subgid-file:subgid"];
        let flags: Vec<String> = flags
            .iter()
            .map(|flag| flag.split_once(':').unwrap())
            .map(|(flag, name)| format!("--{flag}={}", world.path(name).display()))
            .collect();
        world.daemon("sysbox-mgr", &flags, "sysmgr.sock");
        world
    }

    fn daemon(&mut self, name: &str, flags: &[String], socket: &str) {
        let program = Path::new(RUNTIME).with_file_name(name);
        assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
        let log = fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let child = Command::new(program)
            .args(flags)
            .env("SYSBOX_RUN_DIR", self.path("run"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons.push(child);
        let socket = self.path("run").join(socket);
        wait_until(name, || sysbox_ipc::Connection::connect(&socket).is_ok());
    }

    /// A path in the test's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The runtime with these arguments.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(RUNTIME);
        command.arg("--root").arg(self.path("root")).args(arguments);
        command.env("SYSBOX_RUN_DIR", self.path("run")).stdin(Stdio::null());
        command
    }

    /// Runs the runtime to its end. Its output goes to files: a container that stays would hold
    /// pipes open.
    pub fn runtime<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Finished {
        self.finish(self.command(arguments))
    }

    /// Runs a command to its end.
    pub fn finish(&self, mut command: Command) -> Finished {
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let status = command.status().unwrap();
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Finished { code: status.code(), out: text(out), err: text(err) }
    }

    /// Deletes whatever containers a case has left.
    pub fn clean_up(&self) {
        for entry in fs::read_dir(self.path("root")).into_iter().flatten().flatten() {
            let arguments = [OsStr::new("delete"), OsStr::new("--force"), &entry.file_name()];
            let done = self.runtime(&arguments);
            if done.code != Some(0) {
                println!("deleting what a case has left: {done:?}");
            }
        }
    }

    /// What the daemons said.
    pub fn logs(&self) -> String {
        let log = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("{}\n{}", log("sysbox-mgr.log"), log("sysbox-fs.log"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = kill_process(Pid::from_child(daemon), Signal::TERM);
            let _ = daemon.wait();
        }
        // What keeps the daemons' descriptors over a restart has nothing to wait for any more.
        let ours = format!("SYSBOX_RUN_DIR={}", self.path("run").display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && environment.split(|byte| *byte == 0).any(|word| word == ours.as_bytes())
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = rustix::mount::unmount(self.path("run/fs"), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// The output of a command that must have succeeded, without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.trim_end().to_owned()
    }

    /// Checks that the command failed with this code and said this.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(format!("{}{}", self.out, self.err).contains(words), "{words:?}: {self:?}");
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Waits up to ten seconds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
