//! Containers that go away with the test, and show their logs if it failed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::engine::{self, Engine, How};
use crate::world::BUSYBOX;
use crate::{Output, wait_until};

/// How long an init system may take to boot.
const BOOT: Duration = Duration::from_secs(90);

/// A container that is to be started.
#[derive(Debug)]
pub struct Container {
    pub(crate) image: String,
    pub(crate) runtime: String,
    pub(crate) args: Vec<String>,
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
        let name = unique_name();
        let output = engine::run(How::Foreground, &name, self, &owned(command)).run();
        if Engine::current() == Engine::Ctr {
            engine::remove(&name);
        }
        output
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
        engine::run(How::Detached, &running.name, self, &owned(command)).ok();
        running
    }

    /// `docker run --detach` that must fail: what was printed. Nothing of the container stays.
    #[track_caller]
    pub fn refused<S: AsRef<str>>(&self, command: impl IntoIterator<Item = S>) -> String {
        let name = unique_name();
        let output = engine::run(How::Detached, &name, self, &owned(command)).run();
        engine::remove(&name);
        output.fails()
    }
}

fn owned<S: AsRef<str>>(command: impl IntoIterator<Item = S>) -> Vec<String> {
    command.into_iter().map(|word| word.as_ref().to_owned()).collect()
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
        engine::exec(&self.name, options, &owned(command)).run()
    }

    /// The same with something on its standard input.
    #[track_caller]
    pub fn exec_with_input<S: AsRef<str>>(
        &self,
        input: &str,
        command: impl IntoIterator<Item = S>,
    ) -> Output {
        engine::exec(&self.name, &["--interactive"], &owned(command)).stdin(input).run()
    }

    /// A command of the engine that takes the container's name last; it must succeed.
    #[track_caller]
    pub fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> String {
        Engine::current().cmd(args).args([&self.name]).ok()
    }

    /// A field of `docker inspect`, as a Go template names it.
    #[track_caller]
    pub fn inspect(&self, field: &str) -> String {
        engine::cli::inspect(&self.name, field)
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
        let state = engine::report(&self.name);
        let journal =
            self.sh("! command -v journalctl >/dev/null || journalctl --no-pager --lines 40");
        format!("container {}: {state}\n--- its journal\n{}", self.name, journal.stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A second panic would end the whole test program.
            let report = std::panic::catch_unwind(|| self.report());
            eprintln!(
                "{}",
                report.unwrap_or_else(|_| "(no report: the engine does not answer)".into())
            );
        }
        let _ = std::panic::catch_unwind(|| engine::remove(&self.name));
    }
}

/// A name that no other container of any test run has.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{count}", std::process::id())
}
