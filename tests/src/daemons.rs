//! The daemons of the world: killing them, and starting them again.

use std::fs;
use std::time::Duration;

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
