//! Other engines that call the runtime: containerd by its shim, and Podman by conmon with its pods.

use std::fs;
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
    let cgroup = format!("{}/ctr-{}", world.cgroup_parent(), std::process::id());
    let run = ["run", "--runc-binary", &runtime, "--runc-root", &root, "--cgroup", &cgroup];
    let run = |options: &[&str], rest: &[&str]| ctr(&[&run, options, &[&image], rest].concat());
    check(run(&["--rm"], &["once", "sh", "-c", SCRIPT]));

    run(&["--detach"], &["long", "sleep", "1000"]).ok();
    let exec = ["tasks", "exec", "--exec-id", "one", "long", "sh", "-c", "exit 42"];
    assert_eq!(ctr(&exec).code(), 42);
    // `memory.usage_in_bytes` of cgroup v1, `memory.usage` of v2.
    let metrics = ctr(&["tasks", "metrics", "long"]).ok();
    let used = metrics.lines().find(|line| line.starts_with("memory.usage")).unwrap_or_default();
    let bytes = used.split_whitespace().last().and_then(|bytes| bytes.parse().ok());
    assert!(bytes.is_some_and(|bytes: u64| bytes > 10_000), "{metrics}");
    ctr(&["tasks", "pause", "long"]).ok();
    ctr(&["tasks", "resume", "long"]).ok();
    ctr(&["tasks", "kill", "--signal", "SIGKILL", "long"]).ok();
    ctr(&["tasks", "delete", "--force", "long"]);
    ctr(&["containers", "delete", "long"]).ok();
    ctr(&["images", "remove", &image]).ok();
}

/// Commands of the world's Podman with what they need in each view.
fn podman(args: &[&str]) -> Output {
    Cmd::new("podman", args).run()
}

/// Options of `podman run`, and Podman's own image; nothing, with a note, where Podman can't run.
fn podman_run(test: &str) -> Option<Vec<String>> {
    let world = World::current();
    if !PathBuf::from("/usr/bin/podman").exists() {
        cannot_run(test, "podman is not installed");
        return None;
    }
    // Podman limits the number of processes by default.
    if !world.has_controllers(test, &["pids"]) {
        return None;
    }
    if !podman(&["image", "exists", BUSYBOX]).success() {
        let directory = tempfile::tempdir().unwrap();
        podman(&["load", "--input", &saved_image(directory.path())]).ok();
    }
    Some(["run", "--cgroup-parent", &world.cgroup_parent()].map(str::to_owned).to_vec())
}

/// Runs a command with `podman run`'s options before its own.
fn with(run: &[String], args: &[&str]) -> Output {
    Cmd::new("podman", run).args(args).run()
}

/// A name for Podman; the containers and the pod of this name are removed with the value.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("{what}-{}", std::process::id()))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        podman(&["rm", "--force", "--ignore", "--time", "0", &self.0]);
        podman(&["pod", "rm", "--force", "--ignore", "--time", "0", &self.0]);
    }
}

/// What root can do only to a network that his user namespace owns.
const CHANGE_NETWORK: &str = "ip link set lo down && ip link set lo up && ip link add v type bridge && \
     ip link delete v && ip address add 10.9.9.9/32 dev eth0 && echo changed";

#[test]
fn podman_containers_change_their_network() {
    let _world = shared();
    let test = "callers::podman_containers_change_their_network";
    let Some(run) = podman_run(test) else { return };
    check(with(&run, &["--rm", BUSYBOX, "sh", "-c", SCRIPT]));
    let script =
        format!("{CHANGE_NETWORK} && ip route show default && cat /sys/class/net/eth0/address");
    let changed = with(&run, &["--rm", BUSYBOX, "sh", "-c", &script]).ok();
    let lines: Vec<&str> = changed.lines().collect();
    assert!(lines[0] == "changed" && lines[1].starts_with("default via "), "{changed}");

    // The address and the MAC are those that Podman knows, and packets go both ways.
    let name = Named::new("net");
    let options = ["--detach", "--name", &name.0, BUSYBOX, "sleep", "1000"];
    with(&run, &options).ok();
    let known = |field: &str| {
        let format = format!("{{{{.NetworkSettings.{field}}}}}");
        podman(&["inspect", "--format", &format, &name.0]).ok()
    };
    let inside = |script: &str| podman(&["exec", &name.0, "sh", "-c", script]);
    let shown = inside("ip address show dev eth0; ip route").ok();
    for field in ["IPAddress", "MacAddress", "Gateway"] {
        assert!(shown.contains(&known(field)), "{field} {}: {shown}", known(field));
    }
    let gateway = known("Gateway");
    inside(&format!("ping -c 1 -W 5 {gateway}")).ok();
    podman(&["restart", "--time", "0", &name.0]).ok();
    inside(&format!("ping -c 1 -W 5 {gateway}")).ok();
    assert_eq!(inside(CHANGE_NETWORK).ok(), "changed");

    // Who wants it is in Podman's namespace itself, where root can only look.
    let joins = ["--rm", "--annotation", "io.sysbox.join-network=true", BUSYBOX, "sh", "-c"];
    let joined =
        with(&run, &[&joins[..], &["ip address show dev eth0 && ip link set lo down"]].concat());
    assert!(joined.fails().contains("Operation not permitted"));
    // As is who shares the network of another engine's container.
    let plain = Named::new("plain");
    let other = ["--runtime", "runc", &run[0], &run[1], &run[2], "--detach", "--name", &plain.0];
    podman(&[&other[..], &[BUSYBOX, "sleep", "1000"]].concat()).ok();
    let shares = ["--rm", "--network", &format!("container:{}", plain.0), BUSYBOX, "readlink"];
    let shared = with(&run, &[&shares[..], &["/proc/self/ns/net"]].concat()).ok();
    assert_eq!(podman(&["exec", &plain.0, "readlink", "/proc/self/ns/net"]).ok(), shared);
}

/// Podman chooses the ids, maps the layers itself, and sets up the network after the start.
#[test]
fn podman_with_ids_of_its_own() {
    let _world = shared();
    let Some(run) = podman_run("callers::podman_with_ids_of_its_own") else { return };
    let auto = ["--rm", "--userns=auto:size=65536", BUSYBOX, "sh", "-c"];
    check(with(&run, &[&auto[..], &[SCRIPT]].concat()));
    let output = with(&run, &[&auto[..], &[CHANGE_NETWORK]].concat());
    assert_eq!(output.ok(), "changed");
    let name = Named::new("auto");
    let long =
        ["--detach", "--name", &name.0, "--userns=auto:size=65536", BUSYBOX, "sleep", "1000"];
    with(&run, &long).ok();
    assert_eq!(podman(&["exec", &name.0, "sh", "-c", "touch /file && stat -c %u /file"]).ok(), "0");
    // Its ids are those of the host's side, so even this works.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("given");
    fs::write(&file, "given").unwrap();
    podman(&["cp", file.to_str().unwrap(), &format!("{}:/etc/given", name.0)]).ok();
    assert_eq!(podman(&["exec", &name.0, "cat", "/etc/given"]).ok(), "given");
}

#[test]
fn podman_builds() {
    let _world = shared();
    let Some(run) = podman_run("callers::podman_builds") else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = "cut -c 1-40 /proc/self/uid_map >/map && touch /file && chown 1000:1001 /file && \
         mkdir /m && mount -t tmpfs none /m";
    let recipe = format!("FROM {BUSYBOX}\nRUN {script}\n");
    fs::write(directory.path().join("Dockerfile"), recipe).unwrap();
    let image = format!("localhost/built-{}", std::process::id());
    let runtime = World::current().dir.join("podman/sysbox-runc").display().to_string();
    // Here that is the cgroup itself.
    let cgroup = format!("{}/build-{}", run[2], std::process::id());
    let options = ["build", "--runtime", &runtime, "--isolation", "oci", "--tag", &image];
    let build = [&options[..], &["--cgroup-parent", &cgroup]].concat();
    podman(&[&build[..], &[directory.path().to_str().unwrap()]].concat()).ok();
    let show = "cat /map; stat -c %u:%g /file";
    let plain =
        podman(&["--runtime", "runc", "run", &run[1], &run[2], "--rm", &image, "sh", "-c", show]);
    podman(&["rmi", "--force", &image]).ok();
    let plain = plain.ok();
    let (map, owner) = plain.split_once('\n').unwrap();
    let map: Vec<&str> = map.split_whitespace().collect();
    assert!(map[1] != "0" && map[2] == "65536", "built by a system container: {plain}");
    assert_eq!(owner, "1000:1001");
}

#[test]
fn podman_pods() {
    let _world = shared();
    let Some(run) = podman_run("callers::podman_pods") else { return };
    let parent = World::current().cgroup_parent();
    let infra =
        ["--infra-image", BUSYBOX, "--infra-command", "sleep 1000", "--cgroup-parent", &parent];
    for network in ["none", "podman"] {
        let pod = Named::new("pod");
        let create = ["pod", "create", "--name", &pod.0, "--network", network];
        let id = podman(&[&create[..], &infra].concat()).ok();
        let member = Named::new("member");
        let long =
            ["run", "--detach", "--pod", &pod.0, "--name", &member.0, BUSYBOX, "sleep", "1000"];
        podman(&long).ok();
        // Root of each has rights over the network of both.
        let script = "for n in user net ipc uts pid; do readlink /proc/self/ns/$n; done; \
             ip link set lo down && ip link set lo up && echo up";
        let run = [&run[0], "--rm", "--pod", &pod.0, BUSYBOX, "sh", "-c", script];
        let one = podman(&run).ok();
        let other = podman(&["exec", &member.0, "sh", "-c", script]).ok();
        let (one, other): (Vec<_>, Vec<_>) = (one.lines().collect(), other.lines().collect());
        assert_eq!((&one[..4], one[5]), (&other[..4], "up"), "shared: user, net, ipc, uts");
        assert_ne!(one[4], other[4], "pid namespaces are not shared");
        assert_eq!(podman(&["exec", &member.0, "sh", "-c", "exit 42"]).code(), 42);
        for verb in ["pause", "unpause", "kill", "start", "stop", "start"] {
            let time: &[&str] = if verb == "stop" { &["--time", "0"] } else { &[] };
            podman(&[&["pod", verb], time, &[&pod.0]].concat()).ok();
        }
        podman(&["exec", &member.0, "ip", "address", "show", "lo"]).ok();
        drop((member, pod));
        // Podman forgets the pod's cgroup in hierarchies of v1 that have no controllers.
        for hierarchy in ["systemd", "unified"] {
            let _ = fs::remove_dir(format!("/sys/fs/cgroup/{hierarchy}{parent}/{id}"));
        }
    }
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
