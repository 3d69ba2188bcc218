//! The README's first command, `scripts/quickstart`, from nothing to `--clean`, as a user runs it: it
//! builds the release programs, starts a private engine and shows the proofs. Not in a world: it makes
//! one of its own. The branch for a Docker that runs already is tested on whole machines
//! (`tests/machine`), since no test disturbs an engine of the machine that it runs on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sysbox_tests::{Cmd, Output};

/// A release build from nothing and a Debian image take most of it, on two cores.
const PATIENCE: Duration = Duration::from_secs(1500);

/// A directory of this quick start's own, with its own cache of images: `--clean` empties that too.
struct QuickStart {
    script: PathBuf,
    scratch: tempfile::TempDir,
}

impl QuickStart {
    fn new() -> Self {
        let top =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
        let scratch = tempfile::Builder::new()
            .prefix("sysbox-qs.")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        // Container root, who is nobody on the host, walks through it to its own root file system.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        let quick_start = Self { script: top.join("scripts/quickstart"), scratch };
        quick_start.share_images();
        quick_start
    }

    fn home(&self) -> PathBuf {
        self.scratch.path().join("home")
    }

    fn cache(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }

    /// Archives that other tests made already; links, as `--clean` removes the names only.
    fn share_images(&self) {
        let cache = self.cache().join("sysbox-images");
        fs::create_dir_all(&cache).expect("making a directory");
        let Ok(entries) = fs::read_dir("/var/cache/sysbox-images") else { return };
        for entry in entries.map(|entry| entry.expect("reading a directory")) {
            if entry.path().extension().is_some_and(|extension| extension == "tar") {
                let to = cache.join(entry.file_name());
                if fs::hard_link(entry.path(), &to).is_err() {
                    fs::copy(entry.path(), to).expect("copying an image's archive");
                }
            }
        }
    }

    /// What is in the cache of the images that the quick start makes.
    fn archives(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache().join("sysbox-images")).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("reading a directory").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("bookworm") || name.starts_with("busybox")).collect()
    }

    fn run(&self, args: &[&str]) -> Output {
        Cmd::new(&self.script.to_string_lossy(), args)
            .env("SYSBOX_QUICKSTART_DIR", &self.home().to_string_lossy())
            .env("XDG_CACHE_HOME", &self.cache().to_string_lossy())
            .patience(PATIENCE)
            .run()
    }

    /// `docker` for its engine.
    fn docker(&self, args: &[&str]) -> String {
        let socket = format!("unix://{}/docker.sock", self.home().display());
        Cmd::docker(["-H", &socket]).args(args).ok()
    }

    /// Processes and mounts that name its directory.
    fn traces(&self) -> Vec<String> {
        let home = self.home().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mounts").expect("reading the mount table");
        let processes = fs::read_dir("/proc").expect("reading /proc").filter_map(|entry| {
            let command = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&command).replace('\0', " "))
        });
        mounts
            .lines()
            .map(str::to_owned)
            .chain(processes)
            .filter(|line| line.contains(&home))
            .collect()
    }
}

/// Also when a test fails half way.
impl Drop for QuickStart {
    fn drop(&mut self) {
        if self.home().exists() {
            self.run(&["--clean"]);
        }
    }
}

#[test]
fn it_shows_each_proof_is_idempotent_and_undoes_all() {
    let quick_start = QuickStart::new();
    let shown = quick_start.run(&["--private"]).ok();
    for proof in [
        "PID 1 inside:           systemd (systemd 252",
        "), running",
        "(65536 ids)",
        "memory seen inside:     512 MB",
        "CPUs seen inside:       1 (",
        "Docker inside:          20.10",
        "overlay2",
        "a container in there:   hello from ",
        "Try next:",
    ] {
        assert!(shown.contains(proof), "'{proof}' is not in:\n{shown}");
    }
    let container =
        quick_start.docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", "sysbox-demo"]);

    let again = quick_start.run(&[]).ok();
    assert!(again.contains("a container in there:   hello from "), "{again}");
    assert_eq!(
        container,
        quick_start.docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", "sysbox-demo"]),
        "the second run left the container as it was"
    );

    quick_start.run(&["--clean"]).ok();
    assert!(!quick_start.home().exists(), "its directory is gone");
    assert_eq!(Vec::<String>::new(), quick_start.traces(), "mounts and processes");
    assert_eq!(Vec::<String>::new(), quick_start.archives(), "the images that it made");
}

#[test]
fn an_unknown_option_changes_nothing() {
    let quick_start = QuickStart::new();
    let output = quick_start.run(&["--cleen"]);
    assert!(output.stderr.contains("unknown option '--cleen'"), "{output}");
    assert!(output.stderr.contains("usage: scripts/quickstart"), "{output}");
    assert!(!quick_start.home().exists(), "nothing was made");
}

#[test]
fn programs_that_are_missing_are_named() {
    let quick_start = QuickStart::new();
    let output = quick_start.run(&["--private", "--bin", "/nowhere"]);
    assert!(output.stderr.contains("there is no program /nowhere/sysbox-runc"), "{output}");
    assert!(!quick_start.home().exists(), "nothing was made");
}
