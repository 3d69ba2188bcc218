//! What inner engines store is part of the container: kept, committed and removed with it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use sysbox_tests::{
    BUSYBOX, Cmd, Container, ENGINES, Running, TRIXIE, World, alone, shared, wait_until,
};

/// Removes an image when the test is over.
struct Image(String);

impl Image {
    fn of(container: &Running, tag: &str) -> Self {
        let image = Self(format!("{}-{tag}:latest", container.name));
        Cmd::docker(["commit", &container.name, &image.0]).ok();
        image
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        Cmd::docker(["image", "rm", "--force", &self.0]).run();
    }
}

/// Layers with files that were removed and directories that were replaced, as tar archives lose them.
const BUILD: &str = "docker load --quiet --input /opt/busybox.tar && mkdir /b && cd /b && \
    printf 'FROM sysbox-busybox\\nRUN mkdir /d && echo 1 >/d/old && echo 2 >/gone\\n\
    RUN rm -rf /d /gone && mkdir /d && echo new >/d/new\\n' >Dockerfile && \
    DOCKER_BUILDKIT=0 docker build --quiet --tag built .";
const SHOW: &str = "docker run --rm built sh -c 'ls /d; ls /gone 2>&1'";
const SHOWN: &str = "new\nls: /gone: No such file or directory";

#[test]
fn a_committed_system_has_its_inner_images() {
    let _world = shared();
    let first = Container::booted::<&str>(TRIXIE, []);
    first.sh(BUILD).ok();
    assert!(first.sh(SHOW).to_string().contains(SHOWN));
    // Committed while it runs (Docker pauses it), and the next generation when it has stopped.
    let image = Image::of(&first, "running");
    drop(first);
    let second = Container::booted::<&str>(&image.0, []);
    assert!(second.sh(SHOW).to_string().contains(SHOWN));
    second.sh("docker tag built again && docker rmi sysbox-busybox built").ok();
    second.docker(["stop", "--time", "20"]);
    let image = Image::of(&second, "stopped");
    let third = Container::booted::<&str>(&image.0, []);
    let images = third.sh("docker images --format '{{.Repository}}'").ok();
    assert!(images.contains("again") && !images.contains("built"), "{images}");
    third.sh("docker run --rm again cat /d/new").ok();
}

#[test]
fn a_store_is_kept_over_restarts_and_removed_with_its_container() {
    let _world = shared();
    let template = Container::sleeping::<&str>([]);
    template
        .sh("mkdir /etc/docker && echo '{\"data-root\": \"/data/engine\"}' >/etc/docker/daemon.json")
        .ok();
    let image = Image::of(&template, "configured");
    let container = Container::new(&image.0).start(["sleep", "1000"]);
    let store = container.upper_dir().join("data/engine");
    assert_ne!(container.sh("stat -f -c %T /data/engine").ok(), "overlayfs");
    container.sh("echo kept >/data/engine/file && chown 5:6 /data/engine/file").ok();
    for stop in ["restart", "kill"] {
        container.docker([stop]);
        container.docker(["start"]);
        assert_eq!(
            container.sh("cat /data/engine/file && stat -c %u:%g /data/engine/file").ok(),
            "kept\n5:6"
        );
    }
    let seen = container.docker(["diff"]);
    assert!(seen.contains("A /data/engine/file"), "the engine sees it: {seen}");
    assert!(store.join("file").exists());
    drop(container);
    assert!(!store.exists());
}

#[test]
fn the_users_volume_is_the_store_where_there_is_one() {
    let _world = shared();
    let template = Container::sleeping::<&str>([]);
    template.sh("mkdir -p /var/lib/docker").ok();
    let image = Image::of(&template, "with-store");
    let container =
        Container::new(&image.0).args(["--volume", "/var/lib/docker"]).start(["sleep", "1000"]);
    container.sh("touch /var/lib/docker/in-volume").ok();
    let volume = PathBuf::from(container.inspect("(index .Mounts 0).Source"));
    assert!(volume.join("in-volume").exists());
    assert!(!container.upper_dir().join("var/lib/docker/in-volume").exists());
    assert_eq!(container.sh("grep -c ' /var/lib/docker ' /proc/mounts").ok(), "1");
}

/// `docker build` with the classic builder runs its steps with the engine's default runtime.
#[test]
fn a_build_step_can_fill_the_inner_store() {
    let _world = alone();
    let engine = DefaultRuntime::set("sysbox");
    let dir = tempfile::tempdir().unwrap();
    let step = "dockerd >/dev/null 2>&1 & pid=$!; until docker info >/dev/null 2>&1; do sleep 0.2; done; \
                docker load --quiet --input /opt/busybox.tar && kill $pid && wait";
    fs::write(dir.path().join("Dockerfile"), format!("FROM {TRIXIE}\nRUN {step}\n")).unwrap();
    let image = Image(format!("built-{}:latest", std::process::id()));
    let context = dir.path().to_str().unwrap();
    let built =
        Cmd::docker(["build", "--tag", &image.0, context]).env("DOCKER_BUILDKIT", "0").run();
    drop(engine);
    built.ok();
    let system = Container::booted::<&str>(&image.0, []);
    assert_eq!(system.sh(&format!("docker run --rm {BUSYBOX} echo baked")).ok(), "baked");
}

/// The default runtime of the world's engine, until this is dropped.
struct DefaultRuntime {
    config: PathBuf,
    before: String,
}

impl DefaultRuntime {
    fn set(runtime: &str) -> Self {
        let dir = World::current().data_root().parent().unwrap().to_owned();
        let config = dir.join("daemon.json");
        let before = fs::read_to_string(&config).unwrap();
        let engine = Self { config, before };
        engine.load(runtime);
        engine
    }

    fn load(&self, runtime: &str) {
        let setting = format!("{{ \"default-runtime\": \"{runtime}\",");
        fs::write(&self.config, self.before.replacen('{', &setting, 1)).unwrap();
        let pid = fs::read_to_string(self.config.with_file_name("pid/dockerd")).unwrap();
        Cmd::new("kill", ["-HUP", pid.trim()]).ok();
        wait_until("the engine has read its configuration", Duration::from_secs(20), || {
            let now = Cmd::docker(["info", "--format", "{{.DefaultRuntime}}"]).ok();
            if now == runtime { Ok(()) } else { Err(now) }
        });
    }
}

impl Drop for DefaultRuntime {
    fn drop(&mut self) {
        self.load("runc");
        fs::write(&self.config, &self.before).unwrap();
    }
}

#[test]
fn modules_of_the_hosts_kernel_are_there_to_read() {
    // Nobody else starts a system meanwhile, which would have them, too.
    let _world = alone();
    let release = Cmd::new("uname", ["-r"]).ok();
    let modules = PathBuf::from(format!("/lib/modules/{release}"));
    let _made = (!modules.exists()).then(|| {
        let made = MadePath::new(&modules);
        fs::create_dir_all(&modules).unwrap();
        let nodes = "fuse fuse c10:229\ntun net/tun c10:200\n";
        fs::write(modules.join("modules.devname"), nodes).unwrap();
        made
    });
    let config = PathBuf::from(format!("/boot/config-{release}"));
    let _config = (!config.exists()).then(|| {
        let made = MadePath::new(&config);
        fs::write(&config, "CONFIG_OF_A_TEST=y\n").unwrap();
        made
    });
    let system = Container::booted::<&str>(ENGINES, []);
    // systemd would make device nodes as the host's modules want them: for root only.
    assert_eq!(system.sh("stat -c %a /dev/fuse /dev/net/tun | xargs").ok(), "666 666");
    let show = format!(
        "grep -c 'lib/modules/{release} .* ro,' /proc/mounts && stat -c %u:%g {}",
        modules.display()
    );
    assert_eq!(system.sh(&show).ok(), "1\n0:0");
    let touched = system.sh(&format!("touch {}/file", modules.display())).fails();
    assert!(touched.contains("Read-only file system"), "{touched}");
    let its_config = fs::read_to_string(&config).unwrap();
    assert_eq!(system.sh(&format!("cat {}", config.display())).ok(), its_config.trim_end());
    system.sh(&format!("echo >{}", config.display())).fails();
    let plain = Container::sleeping::<&str>([]);
    for path in [modules, config] {
        plain.sh(&format!("grep lib/modules /proc/mounts || test -e {}", path.display())).fails();
    }
}

/// A path of the machine that was not there, for a moment.
struct MadePath {
    topmost: PathBuf,
}

impl MadePath {
    /// What is above it is made.
    fn new(path: &std::path::Path) -> Self {
        let missing = path.ancestors().take_while(|p| !p.exists());
        let topmost = missing.last().unwrap_or(path).to_owned();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Self { topmost }
    }
}

impl Drop for MadePath {
    fn drop(&mut self) {
        if self.topmost.is_dir() {
            let _ = fs::remove_dir_all(&self.topmost);
        } else {
            let _ = fs::remove_file(&self.topmost);
        }
    }
}
