//! The daemons of the world: killing them, and starting them again.

use std::fs;
use std::time::{Duration, Instant};

use crate::{Cmd, World, wait_until};

/// How long a killed daemon may take to be gone: one that waits for a file of `sysbox-fs` dies when
/// the next `sysbox-fs` has answered.
const DYING: Duration = Duration::from_secs(10);

/// The pid of a daemon of the world.
#[track_caller]
pub fn pid_of(daemon: &str) -> String {
    let file = World::current().dir.join("pid").join(daemon);
    fs::read_to_string(file).expect("a pid file").trim().to_owned()
}

/// The `sysbox` command, of the same build as the runtime under test.
#[track_caller]
pub fn sysbox(arguments: &[&str]) -> Cmd {
    let runtime = World::current().runtime().canonicalize().expect("the runtime");
    Cmd::new(runtime.with_file_name("sysbox").to_str().expect("text"), arguments)
}

/// Starts those that do not run.
#[track_caller]
pub fn start(daemons: &[&str]) {
    let script = std::env::var("SYSBOX_WORLD_SCRIPT").expect("the world's script");
    let dir = World::current().dir;
    Cmd::new(&script, ["start", dir.to_str().expect("text")]).args(daemons).ok();
}

/// Ends them as an upgrade would.
#[track_caller]
pub fn stop(daemons: &[&str]) {
    let script = std::env::var("SYSBOX_WORLD_SCRIPT").expect("the world's script");
    let dir = World::current().dir;
    Cmd::new(&script, ["stop", dir.to_str().expect("text")]).args(daemons).ok();
}

/// Kills them as the kernel would, and starts them again.
#[track_caller]
pub fn kill(daemons: &[&str]) {
    let pids: Vec<String> = daemons.iter().map(|daemon| pid_of(daemon)).collect();
    Cmd::new("kill", ["-KILL"]).args(&pids).ok();
    for (daemon, pid) in daemons.iter().zip(&pids) {
        wait_dead(pid);
        start(&[daemon]);
    }
}

/// Waits for the end of a process.
#[track_caller]
pub fn wait_dead(pid: &str) {
    let dead = || if is_dead(pid) { Ok(()) } else { Err(format!("process {pid} lives")) };
    wait_until("the daemon is dead", DYING, dead);
}

/// Whether a process has ended; one that nobody has waited for counts as well.
pub fn is_dead(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ") || stat.contains(") X ")
}

/// Ends containerd's shims that an engine has forgotten, for nobody else does: those whose command line
/// names the container `id`; all of the world where it is empty, so only when no container lives.
///
/// One that waits for its engine does not listen when it is asked to end.
#[track_caller]
pub fn end_shims_of(id: &str) {
    let dir = format!("{}/", World::current().dir.display());
    let asked = Instant::now();
    wait_until("the forgotten shims have ended", Duration::from_secs(30), || {
        let processes = fs::read_dir("/proc").expect("listing /proc").flatten();
        let shims = processes.filter(|entry| {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            command.contains("containerd-shim") && command.contains(&dir) && command.contains(id)
        });
        let pids: Vec<_> = shims.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let signal = if asked.elapsed() < Duration::from_secs(3) { "-TERM" } else { "-KILL" };
        for pid in &pids {
            Cmd::new("kill", [signal, pid]).run();
        }
        if pids.is_empty() { Ok(()) } else { Err(pids.join(" ")) }
    });
}
