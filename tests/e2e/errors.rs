//! Bad input gets an error that says what to do, and leaves nothing behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sysbox_tests::{
    BUSYBOX, Cmd, Container, Engine, Feature, Snapshot, World, alone, shared, wait_until,
};

#[test]
fn daemons_that_do_not_run_are_named() {
    let _world = alone();
    let world = World::current();
    let elsewhere = tempfile::Builder::new().prefix("run").tempdir_in(&world.dir).unwrap();
    let program = runtime_with_run_dir(&world, elsewhere.path());
    let runtime = register_runtime(&world, &program);
    let container = || Container::new(BUSYBOX).runtime(&runtime);
    // What an engine makes once, with its first container, is not left behind by ours.
    Container::new(BUSYBOX).sh("true").ok();
    let before = Snapshot::take();

    let message = container().refused(["true"]);
    assert!(message.contains("sysbox-mgr is not running"), "{message}");
    assert!(message.contains("start it with"), "{message}");
    before.wait_restored();

    // Now a manager, but no sysbox-fs.
    let state = elsewhere.path().join("state");
    let mut manager = std::process::Command::new(world.dir.join("bin/sysbox-mgr"))
        .arg("--data-root")
        .arg(&state)
        .env("SYSBOX_RUN_DIR", elsewhere.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let outcome = std::panic::catch_unwind(|| {
        wait_until("the manager listens", Duration::from_secs(10), || {
            let socket = elsewhere.path().join("sysmgr.sock");
            if socket.exists() { Ok(()) } else { Err("no socket".into()) }
        });
        container().refused(["true"])
    });
    let _ = manager.kill();
    let _ = manager.wait();
    let message = outcome.unwrap();
    assert!(message.contains("sysbox-fs is not running"), "{message}");
    assert!(message.contains("start it with"), "{message}");
    if Engine::current() == Engine::Docker {
        unregister_runtime(&world, &runtime);
    }
}

/// The runtime with another run directory of the daemons.
fn runtime_with_run_dir(world: &World, run_dir: &Path) -> PathBuf {
    let wrapper = run_dir.join("sysbox-runc");
    let script = format!(
        "#!/bin/sh\nSYSBOX_RUN_DIR='{}' exec '{}' \"$@\"\n",
        run_dir.display(),
        world.runtime().display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    wrapper
}

/// What the engine takes for the name of this runtime. Docker wants to know it beforehand.
fn register_runtime(world: &World, program: &Path) -> String {
    if Engine::current() != Engine::Docker {
        return program.to_str().unwrap().to_owned();
    }
    let name = format!("sysbox-test-{}", std::process::id());
    edit_runtimes(world, |runtimes| {
        runtimes.insert(name.clone(), serde_json::json!({ "path": program }));
    });
    wait_until("the engine knows the runtime", Duration::from_secs(10), || {
        let known = Cmd::docker(["info", "--format", "{{json .Runtimes}}"]).ok();
        if known.contains(&name) { Ok(()) } else { Err(known) }
    });
    name
}

fn unregister_runtime(world: &World, name: &str) {
    edit_runtimes(world, |runtimes| {
        runtimes.remove(name);
    });
}

/// Changes `runtimes` in the engine's configuration and tells the engine to read it again.
fn edit_runtimes(
    world: &World,
    edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) {
    let path = world.dir.join("daemon.json");
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(config["runtimes"].as_object_mut().unwrap());
    fs::write(&path, serde_json::to_string_pretty(&config).unwrap()).unwrap();
    let pid = fs::read_to_string(world.dir.join("pid/dockerd")).unwrap();
    Cmd::new("kill", ["-HUP", pid.trim()]).ok();
}

#[test]
fn namespaces_of_the_host_are_refused() {
    let _world = shared();
    for option in ["--network=host", "--pid=host", "--ipc=host", "--uts=host", "--userns=host"] {
        // Podman's default, which so can't be told from a wish.
        if Engine::current() == Engine::Podman && option == "--userns=host" {
            continue;
        }
        let message = Container::new(BUSYBOX).args([option]).refused(["true"]);
        let named = message.contains(option) || message.contains("the host's user namespace");
        assert!(named, "{option} should be named: {message}");
    }
}

#[test]
fn privileged_is_refused() {
    let _world = shared();
    let message = Container::new(BUSYBOX).args(["--privileged"]).refused(["true"]);
    assert!(message.contains("leave --privileged out"), "{message}");
}

#[test]
fn malformed_configurations_are_explained() {
    let _world = shared();
    if !Engine::current().has("errors::malformed_configurations_are_explained", &[Feature::First]) {
        return;
    }
    let cases = [
        ("", "config.json"),
        ("{", "config.json"),
        ("[]", "config.json"),
        (r#"{"ociVersion":"1.0.2"}"#, "config.json"),
        (r#"{"ociVersion":1}"#, "ociVersion"),
        (
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"args":[],"cwd":"/"}}"#,
            "args",
        ),
        (
            r#"{"ociVersion":"1.0.2","root":{"path":"rootfs"},"process":{"user":{"uid":0,"gid":0},"args":["true"],"cwd":"x"}}"#,
            "cwd",
        ),
        (
            r#"{"ociVersion":"1.0.2","root":{"path":"nowhere"},"process":{"user":{"uid":0,"gid":0},"args":["true"],"cwd":"/"}}"#,
            "nowhere",
        ),
    ];
    for (config, wanted) in cases {
        let bundle = tempfile::tempdir().unwrap();
        fs::create_dir(bundle.path().join("rootfs")).unwrap();
        fs::write(bundle.path().join("config.json"), config).unwrap();
        let message = run_bundle(bundle.path());
        assert!(message.contains(wanted), "'{config}' should name '{wanted}': {message}");
        assert!(!message.contains("panicked"), "{config}: {message}");
    }
    let bundle = tempfile::tempdir().unwrap();
    let message = run_bundle(bundle.path());
    assert!(message.contains("config.json") && message.contains("no such file"), "{message}");
}

#[test]
fn a_root_that_cannot_be_id_mapped_is_named() {
    let _world = shared();
    if !Engine::current().has("errors::a_root_that_cannot_be_id_mapped_is_named", &[Feature::First])
    {
        return;
    }
    let bundle = tempfile::tempdir().unwrap();
    let rootfs = bundle.path().join("rootfs");
    fs::create_dir(&rootfs).unwrap();
    Cmd::new("mount", ["-t", "ramfs", "none", rootfs.to_str().unwrap()]).ok();
    Cmd::new("runc", ["spec", "--bundle", bundle.path().to_str().unwrap()]).ok();
    let config = bundle.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"terminal\": true", "\"terminal\": false")).unwrap();
    let outcome = std::panic::catch_unwind(|| run_bundle(bundle.path()));
    Cmd::new("umount", [rootfs.to_str().unwrap()]).ok();
    let message = outcome.unwrap();
    assert!(message.contains("ramfs"), "the file system should be named: {message}");
    assert!(message.contains("ID-map"), "{message}");
}

/// Runs a bundle that must be refused with the runtime itself: what it printed. Checks that it left
/// no state.
#[track_caller]
fn run_bundle(bundle: &Path) -> String {
    let root = tempfile::tempdir().unwrap();
    let runtime = World::current().runtime();
    let id = format!("bad-{}", std::process::id());
    let message = Cmd::new(runtime.to_str().unwrap(), ["--root"])
        .args([root.path().to_str().unwrap(), "run", "--bundle", bundle.to_str().unwrap(), &id])
        .run()
        .fails();
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().collect();
    assert!(left.is_empty(), "state stayed: {left:?}");
    message
}
