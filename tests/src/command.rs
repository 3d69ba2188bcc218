//! Commands that end by a deadline and tell everything when they fail.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait::patient;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How long a command may take unless a test says otherwise. Nothing that works needs a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command line under construction.
#[derive(Debug)]
pub struct Cmd {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
    patience: Duration,
}

impl Cmd {
    /// A program with its arguments.
    pub fn new<S: AsRef<str>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut argv = vec![program.to_owned()];
        argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Self { argv, env: Vec::new(), stdin: None, patience: patient(PATIENCE) }
    }

    /// `docker` with these arguments, for the world's engine.
    pub fn docker<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::new("docker", args)
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Feeds this to the command's standard input.
    #[must_use]
    pub fn stdin(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(data.into());
        self
    }

    /// Another deadline than the usual minute.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patient(patience);
        self
    }

    /// Starts the command without waiting for it; its output is thrown away.
    #[track_caller]
    pub fn spawn(&self) -> Child {
        self.command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting `{}`: {error}", self.line()))
    }

    /// Runs the command to its end.
    ///
    /// Output goes to files, not pipes: a process that the command leaves behind can then not keep
    /// the test waiting for the end of a pipe.
    #[track_caller]
    pub fn run(self) -> Output {
        let (mut stdout, mut stderr) = (scratch(), scratch());
        let stdin = self.stdin.as_ref().map_or_else(Stdio::null, |data| {
            let mut file = scratch();
            file.write_all(data).and_then(|()| file.rewind()).expect("writing a temporary file");
            file.into()
        });
        let mut child = self
            .command()
            .stdin(stdin)
            .stdout(stdout.try_clone().expect("duplicating a file"))
            .stderr(stderr.try_clone().expect("duplicating a file"))
            .spawn()
            .unwrap_or_else(|error| panic!("starting `{}`: {error}", self.line()));
        let status = wait(&mut child, self.patience);
        let output = Output {
            line: self.line(),
            status,
            stdout: contents(&mut stdout),
            stderr: contents(&mut stderr),
        };
        assert!(status.is_some(), "killed after {:?}: {output}", self.patience);
        output
    }

    /// Runs the command, which must succeed, and gives what it printed without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().ok()
    }

    /// Gives the command a terminal of its own, for those that refuse to do without: script(1) makes it,
    /// and hands on what is printed and the exit code.
    #[must_use]
    pub(crate) fn with_terminal(mut self) -> Self {
        let quoted = self.argv.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''")));
        let line = quoted.collect::<Vec<_>>().join(" ");
        self.argv =
            ["script", "--quiet", "--echo", "never", "--return", "--command", &line, "/dev/null"]
                .map(str::to_owned)
                .to_vec();
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn line(&self) -> String {
        self.argv.join(" ")
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Output {
    line: String,
    status: Option<ExitStatus>,
    /// All that it wrote to standard output.
    pub stdout: String,
    /// All that it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Its exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// It must have succeeded: what it printed, without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success(), "this should succeed: {self}");
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// It must have failed: all that it printed, errors last.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(!self.success(), "this should fail: {self}");
        self.stdout + &self.stderr
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status.map_or_else(|| "no end".to_owned(), |status| status.to_string());
        write!(
            f,
            "`{}` ({status})\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.stdout, self.stderr
        )
    }
}

fn scratch() -> File {
    tempfile::tempfile().expect("making a temporary file")
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("reading a temporary file");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the child's end, or kills it when the time is over.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("opening a pidfd of a child");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a deadline that fits");
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => break,
            other => other.expect("waiting for a child"),
        };
        return Some(child.wait().expect("reading the status of a child"));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
