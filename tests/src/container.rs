//! Containers that go away with the test, and show their logs if it failed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::world::{BUSYBOX, World};
use crate::{Cmd, Output, wait_until};

/// How long an init system may take to boot.
const BOOT: Duration = Duration::from_secs(90);

/// A container that is to be started.
#[derive(Debug)]
pub struct Container {
    image: String,
    runtime: String,
    args: Vec<String>,
}

impl Container {
    /// A container of this image, with the runtime under test.
    pub fn new(image: &str) -> Self {
        Self { image: image.to_owned(), runtime: "sysbox".to_owned(), args: Vec::new() }
    }

    /// A busybox that sleeps: for tests that only need a container.
    #[track_caller]
    pub fn sleeping<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Running {
        Self::new(BUSYBOX).args(args).start(["sleep", "1000"])
    }

    /// A Debian with systemd, booted.
    #[track_caller]
    pub fn booted<S: AsRef<str>>(image: &str, args: impl IntoIterator<Item = S>) -> Running {
        let system = Self::new(image).args(args).start::<&str>([]);
        system.wait_booted();
        system
    }

    /// Another runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: &str) -> Self {
        self.runtime = runtime.to_owned();
        self
    }

    /// More arguments of `docker run`.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// `docker run` in the foreground, removed at its end.
    #[track_caller]
    pub fn run<S: AsRef<str>>(&self, command: impl IntoIterator<Item = S>) -> Output {
        self.cmd("run", &unique_name()).arg_list(&["--rm"], self, command).run()
    }

    /// `docker run` of a shell script in the foreground.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.run(["sh", "-c", script])
    }

    /// `docker run --detach`.
    #[track_caller]
    pub fn start<S: AsRef<str>>(&self, command: impl IntoIterator<Item = S>) -> Running {
        let running = Running { name: unique_name() };
        self.cmd("run", &running.name).arg_list(&["--detach"], self, command).ok();
        running
    }

    /// `docker run --detach` that must fail: what was printed. Nothing of the container stays.
    #[track_caller]
    pub fn refused<S: AsRef<str>>(&self, command: impl IntoIterator<Item = S>) -> String {
        let name = unique_name();
        let output = self.cmd("run", &name).arg_list(&["--detach"], self, command).run();
        Cmd::docker(["rm", "--force", "--volumes", &name]).run();
        output.fails()
    }

    fn cmd(&self, verb: &str, name: &str) -> Cmd {
        Cmd::docker([verb, "--name", name, "--runtime", &self.runtime])
    }
}

impl Cmd {
    /// Adds what a `docker run` has after its name, in the order that docker wants.
    fn arg_list<S: AsRef<str>>(
        self,
        first: &[&str],
        container: &Container,
        command: impl IntoIterator<Item = S>,
    ) -> Self {
        self.args(first).args(&container.args).args([&container.image]).args(command)
    }
}

/// A container that exists until this value is dropped.
#[derive(Debug)]
pub struct Running {
    /// Its name for the engine.
    pub name: String,
}

impl Running {
    /// Runs a shell script in the container.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&[], ["sh", "-c", script])
    }

    /// `docker exec` with these options.
    #[track_caller]
    pub fn exec<S: AsRef<str>>(
        &self,
        options: &[&str],
        command: impl IntoIterator<Item = S>,
    ) -> Output {
        Cmd::docker(["exec"]).args(options).args([&self.name]).args(command).run()
    }

    /// A `docker` command that takes the container's name last; it must succeed.
    #[track_caller]
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> String {
        Cmd::docker(args).args([&self.name]).ok()
    }

    /// A field of `docker inspect`, as a Go template names it.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        self.docker(["inspect", "--format", &format!("{{{{{field}}}}}")])
    }

    /// The host's pid of the container's init.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let pid = self.inspect(".State.Pid");
        pid.parse().unwrap_or_else(|_| panic!("{} has no pid but '{pid}'", self.name))
    }

    /// The engine's name for the container in full.
    #[track_caller]
    pub fn id(&self) -> String {
        self.inspect(".Id")
    }

    /// Directory of the container's cgroup in the hierarchy of a controller.
    #[track_caller]
    pub fn cgroup(&self, controller: &str) -> std::path::PathBuf {
        let world = World::current();
        let hierarchy = world.controller(controller).expect("a controller that the test asked for");
        let parent = self.inspect(".HostConfig.CgroupParent");
        let parent = if parent.is_empty() { world.cgroup_parent() } else { parent };
        hierarchy.join(parent.trim_start_matches('/')).join(self.id())
    }

    /// Waits until systemd has booted and nothing failed.
    #[track_caller]
    pub fn wait_booted(&self) {
        wait_until("systemd says 'running'", BOOT, || {
            let output = self.exec(&[], ["systemctl", "is-system-running"]);
            match output.stdout.trim() {
                "running" => Ok(()),
                "degraded" => {
                    let failed = self.sh("systemctl --failed --no-legend --plain").stdout;
                    panic!("booted, but these units failed:\n{failed}")
                }
                _ => Err(output.to_string()),
            }
        });
    }

    /// What helps to understand a failure.
    fn report(&self) -> String {
        let state = Cmd::docker(["inspect", "--format", "{{json .State}}", &self.name]).run();
        let logs = Cmd::docker(["logs", "--tail", "40", &self.name]).run();
        let journal =
            self.sh("! command -v journalctl >/dev/null || journalctl --no-pager --lines 40");
        format!(
            "container {}: {}\n--- its logs\n{}{}\n--- its journal\n{}",
            self.name, state.stdout, logs.stdout, logs.stderr, journal.stdout
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would end the whole test program.
            let report = std::panic::catch_unwind(|| self.report());
            eprintln!(
                "{}",
                report.unwrap_or_else(|_| "(no report: docker does not answer)".into())
            );
        }
        let _ = std::panic::catch_unwind(|| {
            Cmd::docker(["rm", "--force", "--volumes", &self.name]).run()
        });
    }
}

/// A name that no other container of any test run has.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{count}", std::process::id())
}
