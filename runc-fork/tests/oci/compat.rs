//! What scripts, engines and runc's users rely on beyond the runtime-spec: words, forms, habits.

use std::fs;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("compat::words", words),
    ("compat::a_process_from_a_pipe", process_from_a_pipe),
    ("compat::hooks_mount_into_the_tree_by_the_pid", hook_mounts),
    ("compat::a_failing_poststart_ends_the_container", poststart),
    ("compat::a_frozen_or_used_cgroup_is_refused", bad_cgroups),
    ("compat::the_same_id_in_two_roots", two_roots),
    ("compat::the_cpus_of_the_caller_are_not_inherited", cpus),
    ("compat::network_devices_move", network_device),
    ("compat::a_seccomp_agent_of_the_user", agent),
    ("compat::readiness_is_handed_on", readiness),
    ("compat::a_read_only_dev", read_only_dev),
];

/// Errors by what is wrong, in runc's words.
fn words(world: &World) {
    let bundle = Bundle::new(world, "words", "true");
    bundle.file("/bad", "#!/no/such/shell\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.dir.join("rootfs/bad"), mode).unwrap();
    type Change = fn(&mut Value);
    let rows: [(Change, &str); 7] = [
        (|s| s["process"]["args"] = json!(["/bad"]), "exec /bad: no such file or directory"),
        (|s| s["linux"]["memoryPolicy"] = json!({"mode": "X"}), "invalid memory policy mode"),
        (|s| s["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}}), "linux.timeOffsets"),
        (
            |s| s["linux"]["resources"]["unified"] = json!({"none.such": "1"}),
            "invalid configuration",
        ),
        (|s| s["linux"]["netDevices"] = json!({"none9": {}}), "there is no network device"),
        (
            |s| {
                s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": "/x", "syscalls": [{"names": ["write"],
                    "action": "SCMP_ACT_NOTIFY"}]});
            },
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            |s| {
                s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
                    "listenerPath": "/none", "syscalls": [{"names": ["mkdir"],
                    "action": "SCMP_ACT_NOTIFY"}]});
            },
            "failed to connect with seccomp agent",
        ),
    ];
    for (index, (change, words)) in rows.into_iter().enumerate() {
        let mut spec = bundle.spec.clone();
        change(&mut spec);
        fs::write(bundle.dir.join("config.json"), spec.to_string()).unwrap();
        let id = format!("{}-{index}", bundle.id);
        let done = world.runtime(&["run", "--bundle", bundle.dir.to_str().unwrap(), &id]);
        assert_ne!(done.code, Some(0), "{words}");
        assert!(format!("{}{}", done.out, done.err).contains(words), "{words}: {done:?}");
    }
    let missing = bundle.make("run", &["--preserve-fds", "77"]);
    missing.fails(1, "please check that preserved-fd");
    assert!(world.runtime(&["-v"]).ok().contains("\ncommit: "));
    world.runtime(&["none-such", "-h"]).fails(3, "No help topic for 'none-such'");
}

fn process_from_a_pipe(world: &World) {
    let bundle = Bundle::sleeping(world, "pipe");
    bundle.start();
    // Without a user: root.
    let line = format!(
        "echo '{{\"args\":[\"id\",\"-u\"],\"cwd\":\"/\",\"env\":[\"PATH=/bin\"]}}' | {} --root {} exec -p /dev/stdin {}",
        env!("CARGO_BIN_EXE_sysbox-runc"),
        world.path("root").display(),
        bundle.id
    );
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", &line]).env("SYSBOX_RUN_DIR", world.path("run"));
    assert_eq!(world.finish(shell).ok(), "0");
    let kill = bundle.call(&["kill"], &["0"]);
    assert_eq!(kill.code, Some(0), "asks whether it lives: {kill:?}");
}

/// As drivers of GPUs do.
fn hook_mounts(world: &World) {
    let mut bundle = Bundle::new(world, "hookmount", "cat /driver");
    bundle.file("/driver", "");
    let (driver, target) = (bundle.dir.join("driver"), bundle.dir.join("rootfs/driver"));
    fs::write(&driver, "from the host\n").unwrap();
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid mount --bind {} {}",
        driver.display(),
        target.display()
    );
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    bundle.spec["hooks"] = json!({ "prestart":
        [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": [path] }] });
    assert_eq!(bundle.run().ok(), "from the host");
    assert_eq!(fs::read_to_string(target).unwrap(), "", "the host sees nothing of it");
}

fn poststart(world: &World) {
    let mut bundle = Bundle::sleeping(world, "poststart");
    bundle.spec["hooks"] = json!({ "poststart": [{ "path": "/bin/false" }] });
    bundle.make("create", &[]).ok();
    let done = bundle.call(&["start"], &[]);
    done.fails(1, "error running poststart hook #0: /bin/false: exit status 1");
    crate::world::wait_until("its end", || bundle.state()["status"] == "stopped");
}

fn bad_cgroups(world: &World) {
    let first = Bundle::sleeping(world, "cg-first");
    first.start();
    let mut second = Bundle::sleeping(world, "cg-second");
    second.spec["linux"]["cgroupsPath"] = json!(format!("/{}", first.id));
    second.run().fails(1, "container's cgroup is not empty");
    assert_eq!(first.state()["status"], "running");
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = unified.iter().find(|dir| fs::exists(format!("{dir}/cgroup.procs")).unwrap());
    let cgroup = format!("{}/oci-frozen", root.expect("a cgroup v2 hierarchy"));
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(format!("{cgroup}/cgroup.freeze"), "1").unwrap();
    second.spec["linux"]["cgroupsPath"] = json!("/oci-frozen");
    let done = second.run();
    fs::remove_dir(&cgroup).expect("it is left alone");
    done.fails(1, "container's cgroup unexpectedly frozen");
}

fn two_roots(world: &World) {
    let bundle = Bundle::sleeping(world, "tworoots");
    bundle.start();
    let mut other = Bundle::sleeping(world, "tworoots-other");
    other.spec["linux"]["cgroupsPath"] = json!(format!("/{}", other.id));
    other.write();
    let root = world.path("other-root");
    let root = root.to_str().unwrap();
    let dir = other.dir.to_str().unwrap();
    world.runtime(&["--root", root, "run", "-d", "--bundle", dir, &bundle.id]).ok();
    assert_eq!(world.runtime(&["--root", root, "list", "-q"]).ok(), bundle.id);
    world.runtime(&["--root", root, "delete", "--force", &bundle.id]).ok();
    bundle.exec("true").ok();
}

fn cpus(world: &World) {
    let bundle = Bundle::new(world, "cpus", "grep Cpus_allowed_list /proc/self/status");
    bundle.write();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_sysbox-runc"), "--root"]);
    command.arg(world.path("root")).args(["run", "--bundle"]).arg(&bundle.dir).arg(&bundle.id);
    command.env("SYSBOX_RUN_DIR", world.path("run"));
    assert_eq!(world.finish(command).ok(), own);
}

fn network_device(world: &World) {
    let name = format!("oci{}", std::process::id() % 100_000);
    let ip = |words: &str| {
        let mut command = std::process::Command::new("ip");
        command.args(words.split(' '));
        world.finish(command)
    };
    let command = "ls /sys/class/net; cat /sys/class/net/moved/flags /proc/net/fib_trie";
    let mut bundle = Bundle::new(world, "netdev", command);
    bundle.spec["linux"]["netDevices"] = json!({ &name: { "name": "moved" } });
    ip(&format!("link add {name} type veth peer name {name}p")).ok();
    ip(&format!("address add 169.254.77.3/32 dev {name}")).ok();
    let done = bundle.run();
    // It is gone with the network namespace, and its other end with it.
    let text = done.ok();
    assert!(text.contains("moved") && text.contains("169.254.77.3"), "{text}");
    let flags = text.lines().find(|line| line.starts_with("0x")).unwrap();
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap();
    assert_eq!(flags & 1, 1, "it is up");
}

/// An agent gets the listener and the state; once it is gone, what it was to answer fails.
fn agent(world: &World) {
    let socket = world.path("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut bundle = Bundle::new(world, "agent", "mkdir /made; echo $?");
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "mine",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    });
    let id = bundle.id.clone();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&stream, &mut parts, &mut control, flags).unwrap().bytes;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        buffer.truncate(received);
        stream.read_to_end(&mut buffer).unwrap();
        let state: Value = serde_json::from_slice(&buffer).unwrap();
        assert_eq!((&state["metadata"], &state["fds"][0]), (&json!("mine"), &json!("seccompFd")));
        assert_eq!((&state["state"]["id"], &state["state"]["pid"]), (&json!(id), &state["pid"]));
        assert_eq!(fds.len(), 1);
    });
    let done = bundle.run();
    agent.join().unwrap();
    assert!(done.out.trim() != "0" && done.err.contains("Function not implemented"), "{done:?}");
}

/// A service manager hears of the container's `READY=1`, with init as the main process.
fn readiness(world: &World) {
    let bundle = Bundle::new(world, "ready", "echo $NOTIFY_SOCKET; sleep 1000");
    bundle.write();
    let path = world.path("notify.sock");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let mut command =
        world.command(&["run", "-d", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
    let out = world.path("ready-out");
    command.env("NOTIFY_SOCKET", &path).stdout(fs::File::create(&out).unwrap());
    let mut runtime = command.spawn().unwrap();
    crate::world::wait_until("the variable", || {
        fs::read_to_string(&out).unwrap() == "/run/notify/notify.sock\n"
    });
    // As the program would say it, busybox having no tool for it.
    let inside = format!("/proc/{}/root/run/notify/notify.sock", bundle.pid());
    let program = std::os::unix::net::UnixDatagram::unbound().unwrap();
    program.send_to(b"STATUS=fine\nREADY=1\nMAINPID=77", inside).unwrap();
    let mut buffer = [0; 256];
    let count = manager.recv(&mut buffer).unwrap();
    let told = format!("MAINPID={}\nREADY=1", bundle.pid());
    assert_eq!(String::from_utf8_lossy(&buffer[..count]), told);
    assert!(runtime.wait().unwrap().success());
}

fn read_only_dev(world: &World) {
    let command =
        "echo x > /dev/null && ! touch /dev/x && touch /dev/shm/x && grep ' /dev ' /proc/mounts";
    let mut bundle = Bundle::new(world, "rodev", command);
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    let text = bundle.run().ok();
    assert!(text.starts_with("tmpfs /dev tmpfs ro,"), "{text}");
}
