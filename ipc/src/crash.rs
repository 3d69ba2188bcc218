//! Crash points: in a debug build, a program can be made to die between two steps of its work, as if
//! it was killed there.
//!
//! The variable `SYSBOX_CRASH_FILE` names a file; if its text is the name of the point that a program
//! comes by, the program removes the file and kills itself. A file, since the programs take their
//! environment from whoever starts them, long before a test knows at which point it wants them to die.
//! It lies in the run directory, since `sysbox-fs` may reach no other.
//! A release build has no such code.

/// Every point: which program dies there, the name, and what has happened by then.
pub const POINTS: &[(&str, &str, &str)] = &[
    ("sysbox-mgr", "register.recorded", "the record is written, ids are taken"),
    (
        "sysbox-mgr",
        "register.equipped",
        "user namespace, volumes and files are there; no answer yet",
    ),
    ("sysbox-mgr", "listener.kept", "a listener is kept, and not served yet"),
    ("sysbox-mgr", "commit.recorded", "the commit is on disk; no answer yet"),
    ("sysbox-mgr", "exited.recorded", "the end of init is noticed and recorded"),
    ("sysbox-mgr", "unregister.let-go", "nothing is served for the container any more"),
    ("sysbox-mgr", "unregister.recorded", "its end is on disk; no answer yet"),
    ("sysbox-mgr", "volume.made", "a volume is filled, but not in its place"),
    ("sysbox-mgr", "volume.placed", "a volume is in its place; the registration goes on"),
    ("sysbox-mgr", "sweep.discarded", "volumes are in the trash, their record is there"),
    ("sysbox-runc", "create.started", "the spec is read; nothing is done"),
    ("sysbox-runc", "create.registered", "the manager knows the container"),
    ("sysbox-runc", "create.cgroup", "the cgroup is made"),
    ("sysbox-runc", "create.init", "init lives and waits"),
    ("sysbox-runc", "create.mounted", "the mount tree is built"),
    ("sysbox-runc", "create.recorded", "state.json is written; not committed"),
    ("sysbox-runc", "create.committed", "committed; the engine has not been told"),
    ("sysbox-runc", "start.begun", "nothing is done"),
    ("sysbox-runc", "start.told", "init was told to go on"),
    ("sysbox-runc", "exec.begun", "nothing is done"),
    ("sysbox-runc", "exec.born", "the process lives and waits"),
    ("sysbox-runc", "pause.begun", "nothing is done"),
    ("sysbox-runc", "pause.done", "the container stands still; the engine has not been told"),
    ("sysbox-runc", "resume.begun", "the container stands still"),
    ("sysbox-runc", "delete.begun", "nothing is done"),
    ("sysbox-runc", "delete.cgroup", "the cgroup is gone"),
    ("sysbox-runc", "delete.unregistered", "the manager was told; the state is there"),
    ("sysbox-fs", "add.recorded", "a container is on disk; no answer yet"),
    ("sysbox-fs", "remove.recorded", "a container is forgotten; no answer yet"),
];

/// Dies here if that is wanted.
#[inline]
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    debug::point(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod debug {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use rustix::process::{Signal, getpid, kill_process};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

    pub fn point(name: &str) {
        debug_assert!(super::POINTS.iter().any(|(_, known, _)| *known == name), "{name}");
        let file = FILE.get_or_init(|| std::env::var_os("SYSBOX_CRASH_FILE").map(PathBuf::from));
        let Some(file) = file else { return };
        let wanted = fs::read_to_string(file).unwrap_or_default();
        // Only one dies: the one who gets to remove the file.
        if wanted.trim() == name && fs::remove_file(file).is_ok() {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal comes at the latest when the call returns.
            std::process::abort();
        }
    }
}
