//! Crash points: a program dies between two steps of its work, and the world is as if it had not, or
//! as if the work had never begun.
//!
//! The points are in [`sysbox_ipc::crash::POINTS`]; here is what is being done when each is passed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sysbox_ipc::crash::POINTS;
use sysbox_tests::{
    BUSYBOX, Cmd, Container, Output, Snapshot, World, alone, daemons, sysbox, wait_until,
};

/// What is done to a container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Run,
    Kill,
    Exec,
    Pause,
    Unpause,
    Remove,
}

/// What passes the points that begin with this.
const ACTS: &[(&str, Act)] = &[
    ("register.", Act::Run),
    ("listener.", Act::Run),
    ("commit.", Act::Run),
    ("create.", Act::Run),
    ("add.", Act::Run),
    ("start.", Act::Run),
    ("exited.", Act::Kill),
    ("exec.", Act::Exec),
    ("pause.", Act::Pause),
    ("resume.", Act::Unpause),
    ("unregister.", Act::Remove),
    ("delete.", Act::Remove),
    ("remove.", Act::Remove),
];

/// Points that only containers with volumes of the manager's own pass, which the engine of a world
/// does not have: `mgr/tests/daemon/crash.rs` passes them.
const ELSEWHERE: [&str; 2] = ["volume.", "sweep."];

impl Act {
    /// The one that passes a point.
    fn of(point: &str) -> Self {
        let found = ACTS.iter().find(|(begin, _)| point.starts_with(begin));
        found.unwrap_or_else(|| panic!("nothing is said to pass {point}")).1
    }

    fn on(self, name: &str) -> Output {
        let words: &[&str] = match self {
            Self::Run => {
                &["run", "--detach", "--runtime=sysbox", "--name", name, BUSYBOX, "sleep", "1000"]
            }
            Self::Kill => return kill_init(name),
            Self::Exec => &["exec", name, "grep", "MemTotal", "/proc/meminfo"],
            Self::Pause => &["pause", name],
            Self::Unpause => &["unpause", name],
            Self::Remove => &["rm", "--force", "--volumes", name],
        };
        Cmd::docker(words).run()
    }
}

/// Kills init while its parent, the engine's shim, stands still: otherwise the engine may have the
/// container deleted before the manager has noticed that it ended.
fn kill_init(name: &str) -> Output {
    let init = Cmd::docker(["inspect", "--format", "{{.State.Pid}}", name]).ok();
    let crash = World::current().dir.join("run/crash").display().to_string();
    let script = "shim=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$0/status)
        kill -STOP $shim; kill -KILL $0
        for _ in $(seq 500); do [ -e $1 ] || break; sleep 0.02; done
        kill -CONT $shim";
    Cmd::new("sh", ["-c", script, &init, &crash]).run()
}

/// Has the next one to come by die there, does the work, and starts a daemon that died.
fn die_at(program: &str, point: &str, work: impl FnOnce() -> Output + Send) -> Output {
    let file = World::current().dir.join("run/crash");
    fs::write(&file, point).expect("naming the crash point");
    let done = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let output = work();
            done.store(true, Ordering::SeqCst);
            output
        });
        if program != "sysbox-runc" {
            let pid = daemons::pid_of(program);
            while !daemons::is_dead(&pid) {
                std::thread::sleep(Duration::from_millis(5));
                // Some are passed after the engine has its answer.
                if done.load(Ordering::SeqCst) {
                    wait_until("the point is passed", Duration::from_secs(10), || {
                        if file.exists() { Err(format!("{point} was not passed")) } else { Ok(()) }
                    });
                    daemons::wait_dead(&pid);
                }
            }
            daemons::start(&[program]);
        }
        working.join().expect("the work")
    });
    assert!(!file.exists(), "{point} was not passed: {output}");
    output
}

/// Docker forgets a task whose `start` failed in this way ("task must be stopped before deletion"),
/// whatever the runtime; so it is ended here. Usually there is none.
fn end_task(id: &str) {
    let socket = World::current().dir.join("run/containerd.sock");
    let ctr = ["--address", socket.to_str().expect("text"), "--namespace", "moby"];
    Cmd::new("ctr", ctr).args(["tasks", "delete", "--force", id]).run();
    Cmd::new("ctr", ctr).args(["containers", "delete", id]).run();
}

/// Has the runtime delete what its state is left of: it can be asked again.
fn delete_states() {
    let world = World::current();
    let root = world.dir.join("run/docker/runtime-runc/moby");
    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
        let (root, id) = (root.to_str().expect("text"), entry.file_name());
        let arguments = ["--root", root, "delete", "--force", id.to_str().expect("text")];
        Cmd::new(world.runtime().to_str().expect("text"), arguments).ok();
    }
}

/// The runtime's directories of the engine's containers.
fn states() -> usize {
    let states = World::current().dir.join("run/docker/runtime-runc/moby");
    fs::read_dir(states).map_or(0, Iterator::count)
}

#[test]
fn a_death_at_any_step_is_recovered_from() {
    let _world = alone();
    // Networks and layers that the engine makes once.
    drop(Container::sleeping::<&str>([]));
    let (before, states_before) = (Snapshot::take(), states());
    let here =
        POINTS.iter().filter(|(_, p, _)| !ELSEWHERE.iter().any(|begin| p.starts_with(begin)));
    for (n, (program, point, reached)) in here.enumerate() {
        eprintln!("{program} dies at {point}: {reached}");
        let (name, act) = (format!("crash-{n}"), Act::of(point));
        if act != Act::Run {
            Act::Run.on(&name).ok();
        }
        if act == Act::Unpause {
            Act::Pause.on(&name).ok();
        }
        let output = die_at(program, point, || act.on(&name));
        // When a daemon dies nobody may see it: the next one goes on.
        let may_fail = *program == "sysbox-runc";
        assert!(may_fail || output.success(), "{point}: a daemon's death was seen: {output}");
        // What failed can be done again.
        match (*point, act) {
            _ if output.success() => {}
            // The engine believes that it runs, and it stands still: it can be removed, below.
            ("pause.done", _) => {}
            (_, Act::Run) => {
                let id = Cmd::docker(["inspect", "--format", "{{.Id}}", &name]).ok();
                Act::Remove.on(&name).ok();
                end_task(&id);
                Act::Run.on(&name).ok();
            }
            _ => drop(act.on(&name).ok()),
        }
        if matches!(act, Act::Run | Act::Exec | Act::Unpause) {
            assert!(Act::Exec.on(&name).ok().contains("MemTotal"), "{point}");
        }
        Act::Remove.on(&name).ok();
        if point.starts_with("delete.") {
            // Docker forgets what it failed to delete; the manager would find it within a minute.
            sysbox(&["gc"]).ok();
            delete_states();
        }
        // Docker leaves a directory of its own when a `start` fails.
        before.wait_restored_but_for_the_engine();
        assert!(states() <= states_before, "{point}: state is left");
    }
    // Of containers that the engine failed to delete its shims stay.
    daemons::end_shims_of("");
    assert_eq!(Container::new(BUSYBOX).sh("echo works").ok(), "works");
}
