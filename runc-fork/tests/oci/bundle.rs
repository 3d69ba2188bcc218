//! A bundle: busybox, and the runtime's own example of a `config.json`, changed by each case.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{Finished, World};

const TOOLS: &[&str] = &[
    "awk", "cat", "chmod", "echo", "env", "grep", "head", "hostname", "id", "ls", "mkdir", "mount",
    "printf", "ps", "readlink", "rm", "rmdir", "sh", "sleep", "stat", "stty", "touch", "true",
    "tty", "umount",
];

/// One container's bundle.
pub struct Bundle<'a> {
    world: &'a World,
    /// Its directory.
    pub dir: PathBuf,
    /// Container id, unlike that of any other test.
    pub id: String,
    /// `config.json`
    pub spec: Value,
}

impl<'a> Bundle<'a> {
    /// A container that runs `command` in a shell.
    pub fn new(world: &'a World, name: &str, command: &str) -> Self {
        let id = format!("oci-{}-{name}", std::process::id());
        let dir = world.path("bundles").join(&id);
        let bin = dir.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("a static busybox is needed");
        for tool in TOOLS {
            symlink("busybox", bin.join(tool)).unwrap();
        }
        world.runtime(&["spec", "--bundle", dir.to_str().unwrap()]).ok();
        let mut spec: Value =
            serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["sh", "-c", command]);
        spec["root"]["readonly"] = json!(false);
        Self { world, dir, id, spec }
    }

    /// A container that does nothing for a long time.
    pub fn sleeping(world: &'a World, name: &str) -> Self {
        Self::new(world, name, "sleep 1000")
    }

    /// A path in the bundle, for the command line.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// Adds a bind mount of a new directory of the bundle; returns that directory.
    pub fn bind(&mut self, name: &str, destination: &str, options: &[&str]) -> PathBuf {
        let source = self.dir.join(name);
        fs::create_dir_all(&source).unwrap();
        self.mount(json!({
            "destination": destination, "type": "bind", "source": source, "options": options
        }));
        source
    }

    /// Adds a mount.
    pub fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Writes a file of the root file system.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.dir.join("rootfs").join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a shell script, with a path of the host.
    pub fn script(&self, path: &Path, text: &str) {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a command of the runtime that has `options` and takes a bundle and an id.
    pub fn make(&self, command: &str, options: &[&str]) -> Finished {
        self.write();
        let dir = self.dir.to_str().unwrap();
        let mut arguments = vec![command, "--bundle", dir];
        arguments.extend(options);
        arguments.push(&self.id);
        self.world.runtime(&arguments)
    }

    /// Writes `config.json`.
    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), self.spec.to_string()).unwrap();
    }

    /// `run` in the foreground.
    pub fn run(&self) -> Finished {
        self.make("run", &[])
    }

    /// `run --detach`, which must succeed.
    #[track_caller]
    pub fn start(&self) {
        self.make("run", &["--detach"]).ok();
    }

    /// A command that takes options and this container's id.
    pub fn call(&self, command: &[&str], after: &[&str]) -> Finished {
        let mut arguments = command.to_vec();
        arguments.push(&self.id);
        arguments.extend(after);
        self.world.runtime(&arguments)
    }

    /// `exec` of a shell command.
    pub fn exec(&self, command: &str) -> Finished {
        self.call(&["exec"], &["sh", "-c", command])
    }

    /// What `state` says.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state"], &[]).ok()).unwrap()
    }

    /// Id of init on the host.
    #[track_caller]
    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }
}
