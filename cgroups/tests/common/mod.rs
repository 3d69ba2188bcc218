//! A test directory in every hierarchy of this host, and processes to put into it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use sysbox_cgroups::{Cgroup, Layout};

/// A directory `sysbox-cg-test-PID-N` in each hierarchy; tests happen below it, and it is removed
/// with all that is in it.
pub struct Sandbox {
    pub layout: Layout,
    whole: Cgroup,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sysbox-cg-test-{}-{number}", std::process::id());
        let host = Layout::detect().expect("cgroup hierarchies");
        for mount in host.mounts() {
            let dir = mount.root.join(&name);
            fs::create_dir(&dir).expect("these tests need root and a writable cgroup file system");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(mount.root.join(file)) {
                    fs::write(dir.join(file), value.trim()).unwrap();
                }
            }
        }
        let whole = Cgroup::plan(&host, Some(&format!("/{name}")), "x").unwrap();
        Sandbox { layout: host.below(Path::new(&name)), whole }
    }

    pub fn plan(&self, path: &str) -> Cgroup {
        Cgroup::plan(&self.layout, Some(path), "id").unwrap()
    }

    /// A created cgroup.
    pub fn create(&self, path: &str) -> Cgroup {
        let cgroup = self.plan(path);
        cgroup.create().unwrap();
        cgroup
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.whole.kill_all(9).expect("end the processes of the test");
        self.whole.remove().expect("remove the test's cgroup");
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Process {
    pub fn sleeping() -> Process {
        Process::run("exec sleep 1000")
    }

    pub fn run(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// A shell that starts with `script` only when [`Process::go`] is called.
    pub fn gated(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("read line; {script}")]).stdin(Stdio::piped());
        Process(command.spawn().unwrap())
    }

    /// Lets a gated process go, and gives its exit code.
    pub fn go(&mut self) -> Option<i32> {
        drop(self.0.stdin.take());
        self.0.wait().unwrap().code()
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// State letter and cgroup file of the process.
    pub fn cgroups(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this test binary again where `/sys/fs/cgroup` is pure v2 (a mount namespace of its own), and
/// wants all its tests to pass there too. There it does nothing.
pub fn again_in_a_pure_v2_view() {
    const MARK: &str = "SYSBOX_CG_TEST_PURE_V2";
    if std::env::var_os(MARK).is_some() {
        assert!(Layout::detect().unwrap().is_pure_v2());
        return;
    }
    let script = "mount --make-rprivate / && umount -R /sys/fs/cgroup && \
                  mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$0\"";
    let status = Command::new("timeout")
        .args(["120", "unshare", "-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(MARK, "1")
        .status()
        .unwrap();
    assert!(status.success(), "the tests fail in a pure v2 view");
}

/// Every directory of a cgroup.
pub fn dirs(cgroup: &Cgroup) -> Vec<PathBuf> {
    cgroup.hierarchies().iter().map(|h| h.dir.clone()).collect()
}
