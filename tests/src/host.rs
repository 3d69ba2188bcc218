//! What is on the host because of containers: taken before and after, it shows what one left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use sysbox_ipc::MgrClient;

use crate::{World, wait_until};

/// Everything in the world that a container could leave behind, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// What is there now.
    #[track_caller]
    pub fn take() -> Self {
        let world = World::current();
        let mut lines = BTreeSet::new();
        mounts(&mut lines);
        for hierarchy in hierarchies() {
            let top = Path::new(&hierarchy).join(world.cgroup_parent().trim_start_matches('/'));
            tree("cgroup", &top, &mut lines);
        }
        processes(&world, &mut lines);
        // The engine's own directories: runtime state, bundles, layers of running containers.
        for dir in ["run", "state"] {
            tree("directory", &world.dir.join(dir), &mut lines);
        }
        let manager = MgrClient::connect().and_then(|manager| manager.status());
        for container in manager.expect("asking sysbox-mgr for its state").containers {
            lines.insert(format!("ID range and record of container {}", container.id));
        }
        Self(lines)
    }

    /// Waits until the world is as it was. The engine and the shims end a moment after `docker rm`.
    #[track_caller]
    pub fn wait_restored(&self) {
        self.wait(|_| true);
    }

    /// The same, but for what is the engine's own: one that is killed forgets shims with their bundles
    /// and networks, and the mount that it makes an image's first layer with, whatever the runtime.
    #[track_caller]
    pub fn wait_restored_but_for_the_engine(&self) {
        let world = World::current();
        let own = ["containerd", "docker"].map(|dir| world.dir.join("run").join(dir));
        self.wait(|line| {
            let engines = own.iter().any(|dir| line.contains(&*dir.to_string_lossy()));
            !engines && !line.contains("containerd-shim") && !line.contains("-init/merged")
        });
    }

    #[track_caller]
    fn wait(&self, counts: impl Fn(&str) -> bool) {
        wait_until("nothing is left over", Duration::from_secs(30), || {
            let now = Self::take();
            let extra: Vec<&str> =
                now.0.difference(&self.0).map(String::as_str).filter(|line| counts(line)).collect();
            if extra.is_empty() { Ok(()) } else { Err(format!("left over:\n{}", extra.join("\n"))) }
        });
    }
}

/// Mounts of this namespace, which is the daemons' and the engine's. A FUSE connection is one of them:
/// its number is the device's.
fn mounts(lines: &mut BTreeSet<String>) {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("reading the mount table");
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        lines.insert(format!("mount on {} of device {}", fields[4], fields[2]));
    }
}

/// Mount points of all cgroup hierarchies.
fn hierarchies() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("reading the mount table");
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[2].starts_with("cgroup"))
        .map(|fields| fields[1].to_owned())
        .collect()
}

/// Directories below `top`; which vanish while this looks is of no interest.
fn tree(what: &str, top: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            lines.insert(format!("{what} {}", entry.path().display()));
            tree(what, &entry.path(), lines);
        }
    }
}

/// Processes of the world besides this test and the daemons: shims, inits, and what they started.
fn processes(world: &World, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc").expect("reading /proc").flatten() {
        let path = entry.path();
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        let cgroup = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        let command = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
        let ours = cgroup.contains(&world.cgroup_name());
        let daemon = ["containerd", "dockerd", "sysbox-mgr", "sysbox-fs", "sleep"]
            .contains(&name.trim_end())
            && !cgroup.contains("/containers/");
        if ours && !daemon {
            let pid = entry.file_name();
            lines.insert(format!("process {} {}", pid.display(), command.replace('\0', " ")));
        }
    }
}
