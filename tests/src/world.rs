//! Where the tests run, and which of them may run side by side.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Engine;

/// An image with one static binary.
pub const BUSYBOX: &str = "sysbox-busybox:latest";
/// Debian 12 with systemd 252 and Docker 20.10.
pub const BOOKWORM: &str = "sysbox-system:bookworm";
/// Debian 13 with systemd 257 and Docker 26.
pub const TRIXIE: &str = "sysbox-system:trixie";
/// Debian 13 with rootless engines and what they need; not loaded in every world.
pub const ENGINES: &str = "sysbox-system:engines";

/// The directory and view of the world that this test runs in, from its environment.
#[derive(Debug)]
pub struct World {
    /// The world's directory.
    pub dir: PathBuf,
    /// `hybrid` or `v2`.
    pub view: String,
}

impl World {
    /// The world around this process; panics outside of one.
    #[track_caller]
    pub fn current() -> Self {
        let get = |name| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!(
                    "{name} is not set: these tests run in a world, start them with scripts/test"
                )
            })
        };
        Self { dir: get("SYSBOX_WORLD").into(), view: get("SYSBOX_WORLD_VIEW") }
    }

    /// The runtime under test.
    pub fn runtime(&self) -> PathBuf {
        self.dir.join("bin/sysbox-runc")
    }

    /// The manager's `--data-root`.
    pub fn data_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Name of the cgroup that holds all of the world's processes.
    pub fn cgroup_name(&self) -> String {
        let parent = self.cgroup_parent();
        parent.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned()
    }

    /// The engine's `cgroup-parent`: the containers' cgroups lie below it.
    #[track_caller]
    pub fn cgroup_parent(&self) -> String {
        let path = self.dir.join("daemon.json");
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let config: serde_json::Value =
            serde_json::from_str(&text).expect("the engine's configuration is JSON");
        config["cgroup-parent"].as_str().expect("the world sets cgroup-parent").to_owned()
    }

    /// Directory where the hierarchy with this controller is mounted; none if the host has no such
    /// controller in the view of this world.
    pub fn controller(&self, controller: &str) -> Option<PathBuf> {
        if self.view == "v2" {
            let all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok()?;
            return all
                .split_whitespace()
                .any(|name| name == controller)
                .then(|| "/sys/fs/cgroup".into());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let found =
                fields[2] == "cgroup" && fields[3].split(',').any(|option| option == controller);
            found.then(|| PathBuf::from(fields[1]))
        })
    }

    /// Whether limits by these controllers can be set here; if not, notes that the test cannot run.
    ///
    /// On the development machine the v1 hierarchies hold the controllers, so that its v2 view has none.
    #[must_use]
    pub fn has_controllers(&self, test: &str, controllers: &[&str]) -> bool {
        let missing: Vec<&str> =
            controllers.iter().copied().filter(|name| self.controller(name).is_none()).collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            cannot_run(
                test,
                &format!("this machine's cgroup v2 hierarchy has no {missing} controller"),
            );
        }
        missing.is_empty()
    }
}

/// Notes in the list that `scripts/test` prints that a test cannot run on this machine, and why.
pub fn cannot_run(test: &str, reason: &str) {
    let list: PathBuf = std::env::var_os("SYSBOX_TEST_CANNOT_RUN")
        .map_or_else(|| Path::new("/dev/stderr").to_owned(), PathBuf::from);
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(&list).expect("opening the list");
    let engine = match Engine::current() {
        Engine::Docker => String::new(),
        other => format!(" with {}", other.name()),
    };
    writeln!(file, "{test}{engine}: {reason}").expect("writing the list");
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Hold this in every test that may run beside others.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Hold this in a test that compares the whole world before and after, or kills the engine.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
