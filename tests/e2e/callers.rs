//! Other engines that call the runtime: containerd by its shim, and Podman by conmon with its pods.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sysbox_tests::{BUSYBOX, Cmd, Container, Output, Running, World, cannot_run, shared};

/// What tells a system container: mapped ids, virtualised files, a new proc.
const SCRIPT: &str = "id -u; cut -c 1-40 /proc/self/uid_map; mkdir -p /new; mount -t proc proc /new && \
     ls /new/self/status; grep -c proc/meminfo /proc/self/mountinfo";

fn check(output: Output) {
    let text = output.ok();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!((lines[0], lines[2]), ("0", "/new/self/status"), "{text}");
    let map: Vec<&str> = lines[1].split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0" && map[2] == "65536", "{text}");
    assert_ne!(lines[3], "0", "no virtualised files: {text}");
}

/// Docker's image as a file, for engines of another store.
fn saved_image(directory: &std::path::Path) -> String {
    let file = directory.join("image.tar").display().to_string();
    Cmd::docker(["save", "--output", &file, BUSYBOX]).ok();
    file
}

#[test]
fn containerd_alone() {
    let _world = shared();
    let world = World::current();
    // Its default configuration asks for CPU shares.
    if !world.has_controllers("callers::containerd_alone", &["cpu"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let socket = world.dir.join("run/containerd.sock").display().to_string();
    let ctr = |args: &[&str]| {
        Cmd::new("ctr", ["--address", &socket, "--namespace", "callers"]).args(args).run()
    };
    ctr(&["images", "import", &saved_image(directory.path())]).ok();
    let image = format!("docker.io/library/{BUSYBOX}");
    let runtime = world.runtime().display().to_string();
    let root = directory.path().join("root").display().to_string();
    let run = ["run", "--runc-binary", &runtime, "--runc-root", &root];
    let run = |options: &[&str], rest: &[&str]| ctr(&[&run, options, &[&image], rest].concat());
    check(run(&["--rm"], &["once", "sh", "-c", SCRIPT]));

    run(&["--detach"], &["long", "sleep", "1000"]).ok();
    let exec = ["tasks", "exec", "--exec-id", "one", "long", "sh", "-c", "exit 42"];
    assert_eq!(ctr(&exec).code(), 42);
    assert!(ctr(&["tasks", "metrics", "long"]).ok().contains("memory.usage_in_bytes"));
    ctr(&["tasks", "pause", "long"]).ok();
    ctr(&["tasks", "resume", "long"]).ok();
    ctr(&["tasks", "kill", "--signal", "SIGKILL", "long"]).ok();
    ctr(&["tasks", "delete", "--force", "long"]);
    ctr(&["containers", "delete", "long"]).ok();
    ctr(&["images", "remove", &image]).ok();
}

/// A Podman whose files are all in one directory, and which goes with it.
struct Podman {
    directory: tempfile::TempDir,
    flags: Vec<String>,
}

impl Podman {
    fn new(world: &World) -> Self {
        // On a file system whose layers can be ID-mapped; Podman wants a path of at most 50 bytes.
        let directory =
            tempfile::Builder::new().prefix("p").rand_bytes(4).tempdir_in(&world.dir).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        // conmon does not hand the environment on.
        let wrapper = directory.path().join("runtime");
        let (run, runtime) = (world.dir.join("run"), world.runtime());
        let text = format!(
            "#!/bin/sh\nSYSBOX_RUN_DIR={} exec {} \"$@\"\n",
            run.display(),
            runtime.display()
        );
        fs::write(&wrapper, text).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        // The defaults raise limits, for which the tests' host may lack the right.
        let limits = "default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]";
        fs::write(
            path("containers.conf"),
            format!("[containers]\nlog_driver = \"k8s-file\"\n{limits}\n"),
        )
        .unwrap();
        let flags = [
            ("--root", path("root")),
            ("--runroot", path("r")),
            ("--tmpdir", path("tmp")),
            ("--cgroup-manager", "cgroupfs".into()),
            ("--events-backend", "file".into()),
            ("--runtime", wrapper.display().to_string()),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        Self { directory, flags }
    }

    fn run(&self, args: &[&str]) -> Output {
        let configuration = self.directory.path().join("containers.conf").display().to_string();
        let command = Cmd::new("podman", &self.flags).args(args);
        command.env("CONTAINERS_CONF", &configuration).env("DOCKER_CONFIG", "").run()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.run(&["rm", "--all", "--force", "--time", "0"]);
        self.run(&["rmi", "--all", "--force"]);
        // Its store is a mount of itself.
        Cmd::new(
            "umount",
            ["--lazy", &self.directory.path().join("root/overlay").display().to_string()],
        )
        .run();
    }
}

#[test]
fn podman_and_its_pods() {
    let _world = shared();
    let test = "callers::podman_and_its_pods";
    let world = World::current();
    if !PathBuf::from("/usr/bin/podman").exists() {
        return cannot_run(test, "podman is not installed");
    }
    // Podman limits the number of processes by default.
    if !world.has_controllers(test, &["pids"]) {
        return;
    }
    let podman = Podman::new(&world);
    podman.run(&["load", "--input", &saved_image(podman.directory.path())]).ok();
    let run = ["run", "--network", "none"];
    check(podman.run(&[&run[..], &["--rm", BUSYBOX, "sh", "-c", SCRIPT]].concat()));

    podman.run(&[&run[..], &["--detach", "--name", "a", BUSYBOX, "sleep", "1000"]].concat()).ok();
    assert_eq!(podman.run(&["exec", "a", "sh", "-c", "exit 42"]).code(), 42);
    podman.run(&["rm", "--force", "--time", "0", "a"]).ok();

    let infra = ["--infra-image", BUSYBOX, "--infra-command", "sleep 1000"];
    podman.run(&[&["pod", "create", "--name", "p", "--network", "none"][..], &infra].concat()).ok();
    podman.run(&["run", "--detach", "--pod", "p", "--name", "b", BUSYBOX, "sleep", "1000"]).ok();
    // Root of each has rights over the network of both.
    let script = "for n in user net ipc uts pid; do readlink /proc/self/ns/$n; done; \
         ip link set lo down && ip link set lo up && echo up";
    let one = podman.run(&["run", "--rm", "--pod", "p", BUSYBOX, "sh", "-c", script]).ok();
    let other = podman.run(&["exec", "b", "sh", "-c", script]).ok();
    let (one, other): (Vec<_>, Vec<_>) = (one.lines().collect(), other.lines().collect());
    assert_eq!((&one[..4], one[5]), (&other[..4], "up"), "shared: user, net, ipc, uts");
    assert_ne!(one[4], other[4], "pid namespaces are not shared");
}

/// Who is in the network of another container is in its user namespace, or could not set it up.
#[test]
fn docker_containers_with_one_network() {
    let _world = shared();
    let first = Container::sleeping::<&str>([]);
    let network = format!("container:{}", first.name);
    let second = Container::sleeping(["--network", &network]);
    second.sh("ip address add 10.9.9.9/32 dev lo").ok();
    assert!(first.sh("ip address show dev lo").ok().contains("10.9.9.9"));
    for (namespace, shared) in [("user", true), ("net", true), ("mnt", false), ("pid", false)] {
        let link =
            |container: &Running| container.sh(&format!("readlink /proc/self/ns/{namespace}")).ok();
        assert_eq!(link(&first) == link(&second), shared, "{namespace}");
    }
    // The ids stay taken for as long as one of the two lives.
    drop(first);
    let third = Container::sleeping::<&str>([]);
    let map = |container: &Running| container.sh("cat /proc/self/uid_map").ok();
    assert_ne!(map(&third), map(&second));
    second.sh("true").ok();
}
