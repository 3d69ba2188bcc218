//! containerd's own command. It is for debugging and has few options, so this translates Docker's: where
//! ctr has nothing of the kind at all, tests ask `Engine::has` before.
//!
//! For volumes without a name a directory of the host is bound, which goes with the container. Output of
//! a container in the background goes to a file. The cgroup is named after the container.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io};

use super::{How, Stats};
use crate::{Cmd, Container, Output, World, wait_until};

/// How long the shim may take to tell that a process has ended.
const SOON: Duration = Duration::from_secs(30);

/// The namespace of what ctr runs (`CONTAINERD_NAMESPACE`); Docker has one of its own.
pub(crate) const NAMESPACE: &str = "tests";

fn ctr<S: AsRef<str>>(args: impl IntoIterator<Item = S>) -> Cmd {
    Cmd::new("ctr", args)
}

/// Where logs and volumes of a container are.
fn directory(name: &str) -> PathBuf {
    World::current().dir.join("run/ctr").join(name)
}

pub(super) fn run(how: How, name: &str, container: &Container, command: &[String]) -> Cmd {
    let world = World::current();
    let cgroup = format!("{}/{name}", world.cgroup_parent());
    let directory = directory(name);
    fs::create_dir_all(&directory).expect("a directory for the container");
    let log = format!("file://{}", directory.join("log").display());
    let mut cmd = ctr(["run", "--cgroup", &cgroup]);
    match container.runtime.as_str() {
        "runc" => {}
        "sysbox" => cmd = cmd.args(["--runc-binary", &world.runtime().display().to_string()]),
        program => cmd = cmd.args(["--runc-binary", program]),
    }
    match how {
        How::Foreground => cmd = cmd.args(["--rm"]),
        How::Detached => cmd = cmd.args(["--detach", "--log-uri", &log]),
    }
    let options = translate(&container.args, &directory);
    if !options.iter().any(|option| option == "--net-host") {
        cmd = cmd.args(["--cni"]);
    }
    let cmd = cmd.args(options).args([&image(&container.image), name]).args(command);
    // It wants a terminal of its own for that.
    if container.args.iter().any(|arg| arg == "--tty") { cmd.with_terminal() } else { cmd }
}

fn image(name: &str) -> String {
    format!("docker.io/library/{name}")
}

/// `ctr run`'s options for these of `docker run`.
#[track_caller]
fn translate(args: &[String], directory: &Path) -> Vec<String> {
    let mut options = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let (option, mut value) = match arg.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (arg, None),
        };
        let mut value = || value.take().or_else(|| args.next()).expect("a value").to_owned();
        match option {
            "--memory" => options.extend(["--memory-limit".into(), bytes(&value()).to_string()]),
            // Whoever limits memory in these tests wants no swap, which ctr can't say.
            "--memory-swap" => drop(value()),
            // The container's address takes the place of a published port.
            "--publish" => drop(value()),
            "--cpus" => options.extend(["--cpus".into(), value()]),
            "--env" => options.extend(["--env".into(), value()]),
            "--workdir" => options.extend(["--cwd".into(), value()]),
            "--tty" | "--privileged" | "--read-only" => options.push(option.to_owned()),
            "--volume" => options.extend(["--mount".into(), bind(&value(), directory)]),
            "--mount" => {
                let value = value().replace("source=", "src=").replace("target=", "dst=");
                options.extend(["--mount".into(), format!("{value},options=rbind:rw")]);
            }
            "--tmpfs" => options.extend(["--mount".into(), tmpfs(&value())]),
            "--network" if value() == "host" => options.push("--net-host".into()),
            "--pid" | "--ipc" | "--uts" | "--userns" => {
                assert_eq!(value(), "host");
                let (kind, file) = match option {
                    "--pid" => ("pid", "pid"),
                    "--userns" => ("user", "user"),
                    other => (&other[2..], &other[2..]),
                };
                // This process is in no namespaces of its own but the world's network and mounts.
                let path = format!("/proc/{}/ns/{file}", std::process::id());
                options.extend(["--with-ns".into(), format!("{kind}:{path}")]);
            }
            other => panic!("no translation for ctr: {other}"),
        }
    }
    options
}

/// `/data`, which is to be a new directory, or `/source:/data` with `:ro` or not.
fn bind(volume: &str, directory: &Path) -> String {
    let (source, rest) = match volume.split_once(':') {
        Some((source, rest)) => (source.to_owned(), rest),
        None => {
            let source = directory.join("volume");
            fs::create_dir_all(&source).expect("a directory for the volume");
            (source.display().to_string(), volume)
        }
    };
    let (target, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    format!("type=bind,src={source},dst={target},options=rbind:{mode}")
}

/// `/scratch:size=1m,mode=1770`.
fn tmpfs(value: &str) -> String {
    let (target, options) = value.split_once(':').unwrap_or((value, ""));
    let options =
        ["nosuid", "nodev"].into_iter().chain(options.split(',')).filter(|o| !o.is_empty());
    let options: Vec<&str> = options.collect();
    format!("type=tmpfs,src=tmpfs,dst={target},options={}", options.join(":"))
}

/// A size as Docker writes it.
#[track_caller]
fn bytes(size: &str) -> u64 {
    let unit = match size.chars().last() {
        Some('m') => 1 << 20,
        Some('g') => 1 << 30,
        _ => 1,
    };
    size.trim_end_matches(['m', 'g']).parse::<u64>().expect("a size") * unit
}

/// Runs a command, and ends with its status a little later. What a program does that is given by its path the
/// runtime must say itself.
///
/// `ctr tasks exec` loses all output of a process that ends before ctr has opened the pipes, with every
/// runtime (of runc's one in a hundred on a busy machine: containerd's issue 5741, mended in its pull request 13931).
const LINGERING: [&str; 4] = ["sh", "-c", r#""$@"; status=$?; sleep 0.1; exit $status"#, "sh"];

/// `ctr tasks exec` has no variables: env(1) sets them.
pub(super) fn exec(name: &str, options: &[&str], command: &[String]) -> Cmd {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let id = format!("exec-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let mut cmd = ctr(["tasks", "exec", "--exec-id", &id]);
    let (mut variables, mut terminal) = (Vec::new(), false);
    let mut lingering = if command[0].starts_with('/') { &[][..] } else { &LINGERING[..] };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || (*options.next().expect("a value")).to_owned();
        match *option {
            "--env" => variables.push(value()),
            "--user" => cmd = cmd.args(["--user", &value()]),
            "--workdir" => cmd = cmd.args(["--cwd", &value()]),
            "--detach" => {
                let log = format!("file://{}", directory(name).join("exec").display());
                cmd = cmd.args(["--detach", "--log-uri", &log]);
                lingering = &[];
            }
            "--tty" => terminal = true,
            // It always hands its input on.
            "--interactive" => {}
            other => panic!("no translation for ctr: {other}"),
        }
    }
    if !variables.is_empty() {
        variables.insert(0, "env".to_owned());
    }
    if terminal {
        cmd = cmd.args(["--tty"]);
    }
    let cmd = cmd.args([name]).args(lingering).args(variables).args(command);
    if terminal { cmd.with_terminal() } else { cmd }
}

pub(super) fn remove(name: &str) -> Output {
    end(name, "SIGKILL", SOON);
    let output = ctr(["containers", "delete", name]).run();
    // What CNI gave it would stay: `ctr run --detach` never takes it back.
    for lease in fs::read_dir("/var/lib/cni/networks/tests").into_iter().flatten().flatten() {
        let owner = fs::read_to_string(lease.path()).unwrap_or_default();
        if owner.lines().next() == Some(&format!("tests-{name}")) {
            let _ = fs::remove_file(lease.path());
        }
    }
    let _ = fs::remove_dir_all(directory(name));
    output
}

/// RUNNING, PAUSED, STOPPED, or nothing where there is no task.
pub(crate) fn state(name: &str) -> String {
    let tasks = ctr(["tasks", "list"]).ok();
    let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|fields| fields[0] == name).map_or_else(String::new, |fields| fields[2].to_owned())
}

pub(super) fn logs(name: &str) -> String {
    let log = fs::read(directory(name).join("log")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Everything that was printed.
pub(crate) fn all_logs(name: &str) -> String {
    logs(name)
}

#[track_caller]
pub(crate) fn pid(name: &str) -> u32 {
    let tasks = ctr(["tasks", "list"]).ok();
    let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|fields| fields[0] == name);
    line.and_then(|fields| fields[1].parse().ok()).unwrap_or_else(|| panic!("{name}: {tasks}"))
}

/// Waits for the end of the container's program: its exit code, which goes with the task.
#[track_caller]
pub(crate) fn wait(name: &str) -> String {
    wait_until(&format!("{name} has ended"), SOON, || match state(name).as_str() {
        "RUNNING" | "PAUSED" | "CREATED" => Err("it runs".to_owned()),
        _ => Ok(()),
    });
    // The exit code is in a warning only.
    let output = ctr(["tasks", "delete", name]).run();
    let code =
        output.stderr.split("exit code ").nth(1).map_or("0", |rest| {
            rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
        });
    code.to_owned()
}

/// A signal, and its end; killed when the time is over.
pub(crate) fn end(name: &str, signal: &str, patience: Duration) -> Option<String> {
    match state(name).as_str() {
        "" => return None,
        "STOPPED" => {}
        state => {
            if state == "PAUSED" {
                ctr(["tasks", "resume", name]).run();
            }
            ctr(["tasks", "kill", "--signal", signal, name]).run();
            let deadline = std::time::Instant::now() + crate::patient(patience);
            while self::state(name) == "RUNNING" && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            if self::state(name) == "RUNNING" {
                ctr(["tasks", "kill", "--signal", "SIGKILL", name]).run();
            }
        }
    }
    Some(wait(name))
}

/// The signal that the image wants for its end.
pub(crate) fn stop(name: &str, patience: Duration) -> Option<String> {
    let info = ctr(["containers", "info", name]).ok();
    let label = "\"io.containerd.image.config.stop-signal\": \"";
    let signal = info.split(label).nth(1).and_then(|rest| rest.split('"').next());
    end(name, signal.unwrap_or("SIGTERM"), patience)
}

/// A new task of a container that has ended.
#[track_caller]
pub(crate) fn start(name: &str) {
    let log = format!("file://{}", directory(name).join("log").display());
    // It asks for a terminal if the container has one.
    ctr(["tasks", "start", "--detach", "--log-uri", &log, name]).with_terminal().ok();
}

/// An option (`upperdir`, `lowerdir`) of the overlay that a snapshot is.
#[track_caller]
pub(crate) fn overlay_option(namespace: &str, snapshot: &str, name: &str) -> String {
    let mounts = ctr(["--namespace", namespace, "snapshots", "mounts", "/nowhere", snapshot]).ok();
    let mut options = mounts.split([',', ' ']).filter_map(|option| option.trim().split_once('='));
    let found = options.find(|(key, _)| *key == name);
    found.unwrap_or_else(|| panic!("no {name}: {mounts}")).1.to_owned()
}

pub(crate) fn volume_dir(name: &str) -> PathBuf {
    directory(name).join("volume")
}

/// The snapshot's changes as `docker diff` writes them, for files alone.
#[track_caller]
pub(crate) fn diff(name: &str) -> String {
    let file = directory(name).join("diff.tar");
    let script = "ctr snapshots diff \"$1\" >\"$2\" && tar --list --gzip --file \"$2\"";
    Cmd::new("sh", ["-c", script, "sh", name, &file.display().to_string()]).ok()
}

/// Command lines of its processes.
#[track_caller]
pub(crate) fn top(name: &str) -> String {
    let listed = ctr(["tasks", "ps", name]).ok();
    let pids = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let lines = pids.map(|pid| {
        let line: io::Result<Vec<u8>> = fs::read(format!("/proc/{pid}/cmdline"));
        let line = String::from_utf8_lossy(&line.unwrap_or_default()).replace('\0', " ");
        format!("{pid} {line}\n")
    });
    lines.fold("PID COMMAND\n".to_owned(), |all, line| all + &line)
}

#[track_caller]
pub(crate) fn stats(name: &str) -> Stats {
    let metrics = ctr(["tasks", "metrics", name]).ok();
    let number = |names: [&str; 2]| {
        let mut lines = metrics.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|fields| fields.len() > 1 && names.contains(&fields[0]));
        line.and_then(|fields| fields[1].parse::<f64>().ok()).unwrap_or_else(|| panic!("{metrics}"))
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    Stats {
        memory: number(["memory.usage_in_bytes", "memory.usage"]),
        memory_limit: number(["memory.limit_in_bytes", "memory.usage_limit"]),
        processes: number(["pids.current", "pids.current"]) as u64,
    }
}

/// An address of the container that the host reaches.
#[track_caller]
pub(crate) fn address(name: &str) -> String {
    let pid = pid(name).to_string();
    let args = ["--target", &pid, "--net", "ip", "-oneline", "-4", "address", "show", "eth0"];
    let line = Cmd::new("nsenter", args).ok();
    let address = line.split_whitespace().nth(3).and_then(|address| address.split('/').next());
    address.unwrap_or_else(|| panic!("no address: {line}")).to_owned()
}
