//! The engines that call the runtime: what a test says once, each of them does in its own words.
//!
//! A test process drives one engine, which `SYSBOX_TEST_ENGINE` names. Tests speak Docker's words
//! (`--memory 64m`), which Podman shares; [`ctr`] translates. What an engine has no word for at all is a
//! [`Feature`]: a test that needs it asks [`Engine::has`], and is listed with the reason where it has none.

pub(crate) mod cli;
pub(crate) mod ctr;

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{Cmd, Container, World, cannot_run};

/// Who starts the containers of this test process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `dockerd`, by the `docker` command.
    Docker,
    /// Podman, by conmon.
    Podman,
    /// containerd by its own command: the shim with nothing above it.
    Ctr,
}

/// What not every engine can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Copies files out of a container.
    CopyOut,
    /// Copies files into a container that runs.
    CopyIntoRunning,
    /// Makes an image of a container.
    Commit,
    /// Changes the limits of a running container.
    Update,
    /// Changes the limit of processes of a running container.
    UpdatePids,
    /// A limit of the number of processes.
    PidsLimit,
    /// A set of CPUs.
    Cpuset,
    /// Volumes that have a name and are the engine's.
    NamedVolumes,
    /// Being the first: the test calls the runtime itself, and once is enough.
    First,
}

impl Engine {
    /// The one that the tests of this process drive.
    #[track_caller]
    pub fn current() -> Self {
        static ENGINE: OnceLock<Engine> = OnceLock::new();
        *ENGINE.get_or_init(|| match std::env::var("SYSBOX_TEST_ENGINE").as_deref() {
            Err(_) | Ok("docker") => Self::Docker,
            Ok("podman") => Self::Podman,
            Ok("ctr") => Self::Ctr,
            Ok(other) => panic!("SYSBOX_TEST_ENGINE={other}: known are docker, podman, ctr"),
        })
    }

    /// What it is called in lists and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Ctr => "ctr",
        }
    }

    /// Whether the engine has all of these; if not, notes that the test cannot run with it.
    #[must_use]
    pub fn has(self, test: &str, features: &[Feature]) -> bool {
        let reason = features.iter().find_map(|feature| self.lacks(*feature));
        if let Some(reason) = reason {
            cannot_run(test, reason);
        }
        reason.is_none()
    }

    /// Why there is no such thing.
    fn lacks(self, feature: Feature) -> Option<&'static str> {
        match (self, feature) {
            (Self::Docker, _) => None,
            (_, Feature::First) => Some("calls the runtime without an engine"),
            (Self::Podman, Feature::UpdatePids) => {
                Some("`podman update` has no limit of processes")
            }
            (Self::Podman, Feature::CopyIntoRunning) => Some(
                "`podman cp` enters the mount namespace as the host's root, whom its file system does not know",
            ),
            (Self::Podman, _) => None,
            (Self::Ctr, Feature::CopyOut | Feature::CopyIntoRunning) => {
                Some("ctr has no command that copies files")
            }
            (Self::Ctr, Feature::Commit) => Some("ctr makes no images of containers"),
            (Self::Ctr, Feature::Update | Feature::UpdatePids) => {
                Some("ctr has no command that changes limits")
            }
            (Self::Ctr, Feature::PidsLimit) => Some("`ctr run` has no limit of processes"),
            (Self::Ctr, Feature::Cpuset) => Some("`ctr run` of containerd 1.6 has no CPU sets"),
            (Self::Ctr, Feature::NamedVolumes) => Some("ctr has no volumes"),
        }
    }

    /// A command of an engine that speaks Docker's words.
    #[track_caller]
    pub fn cmd<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Cmd {
        assert_ne!(self, Self::Ctr, "ctr has other words; the test has to ask `Engine::has` first");
        Cmd::new(self.name(), args)
    }
}

/// How a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Wait for its end, then remove it.
    Foreground,
    /// Leave it running.
    Detached,
}

/// What the engine counts for a container.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Memory in use, in bytes.
    pub memory: f64,
    /// The limit of that.
    pub memory_limit: f64,
    /// Processes.
    pub processes: u64,
}

/// The command that starts a container.
pub(crate) fn run(how: How, name: &str, container: &Container, command: &[String]) -> Cmd {
    match Engine::current() {
        Engine::Ctr => ctr::run(how, name, container, command),
        engine => cli::run(engine, how, name, container, command),
    }
}

/// The command that runs another program in it; options as `docker exec` has them.
pub(crate) fn exec(name: &str, options: &[&str], command: &[String]) -> Cmd {
    match Engine::current() {
        Engine::Ctr => ctr::exec(name, options, command),
        engine => engine.cmd(["exec"]).args(options).args([name]).args(command),
    }
}

/// Kills and removes it with its volumes, if it is there.
pub(crate) fn remove(name: &str) -> crate::Output {
    match Engine::current() {
        Engine::Docker => Cmd::docker(["rm", "--force", "--volumes", name]).run(),
        Engine::Podman => {
            let rm = ["rm", "--force", "--volumes", "--ignore", "--time", "0", name];
            Engine::Podman.cmd(rm).run()
        }
        Engine::Ctr => ctr::remove(name),
    }
}

/// What was printed, and what the engine says of its state: for a test that failed.
pub(crate) fn report(name: &str) -> String {
    let (state, logs) = match Engine::current() {
        Engine::Ctr => (ctr::state(name), ctr::logs(name)),
        engine => {
            let logs = engine.cmd(["logs", "--tail", "40", name]).run();
            let state = engine.cmd(["inspect", "--format", "{{json .State}}", name]).run();
            (state.stdout, logs.stdout + &logs.stderr)
        }
    };
    format!("{state}\n--- its logs\n{logs}")
}

/// Directory of its cgroup below that of a hierarchy.
pub(crate) fn cgroup_path(name: &str) -> PathBuf {
    let parent = || World::current().cgroup_parent().trim_start_matches('/').to_owned();
    match Engine::current() {
        Engine::Docker => {
            let own = cli::inspect(name, ".HostConfig.CgroupParent");
            let parent = if own.is_empty() { parent() } else { own };
            PathBuf::from(parent.trim_start_matches('/')).join(cli::inspect(name, ".Id"))
        }
        Engine::Podman => {
            PathBuf::from(parent()).join(format!("libpod-{}", cli::inspect(name, ".Id")))
        }
        Engine::Ctr => PathBuf::from(parent()).join(name),
    }
}
