//! Nothing of the host changes: settings, clock, modules, mounts, cgroups above the container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use sysbox_tests::{BOOKWORM, Container, World, alone, shared};

use crate::tool::{ATTACKER, container, judge};

/// Settings that the kernel itself changes all the time.
const LIVELY: [&str; 14] = [
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/aio-nr",
    "fs/quota/syncs",
    "kernel/ns_last_pid",
    "kernel/random/uuid",
    "kernel/random/entropy_avail",
    "kernel/pty/nr",
    "kernel/seccomp/actions_logged",
    "net/netfilter/nf_conntrack_count",
    "kernel/ftrace_enabled",
    "fs/negative-dentry-limit",
];

/// Grow and shrink with the memory in use; one for each file system that is mounted.
const SHARES_OF_CACHES: &str = "/sys/devices/virtual/bdi";
/// Registers of devices; reading them can do something.
const BINARY: [&str; 4] = ["config", "resource", "rom", "vpd"];

/// What is compared, a line a thing.
fn state() -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    settings(Path::new("/proc/sys"), &mut state);
    for file in ["/proc/modules", "/proc/swaps", "/proc/1/mountinfo", "/proc/self/mountinfo"] {
        state.insert(file.into(), read(Path::new(file)));
    }
    state.insert("names in /sys/module".into(), names(Path::new("/sys/module")));
    let sysfs = fs::metadata("/sys").expect("sysfs").dev();
    writable(Path::new("/sys"), sysfs, &mut state);
    let world = World::current();
    let hierarchies = fs::read_to_string("/proc/self/mounts").expect("the mount table");
    for line in hierarchies.lines().filter(|line| line.contains(" cgroup")) {
        let hierarchy = line.split(' ').nth(1).expect("a mount point");
        for above in ["", world.cgroup_name().as_str(), world.cgroup_parent().as_str()] {
            let dir = Path::new(hierarchy).join(above.trim_start_matches('/'));
            limits(&dir, &mut state);
        }
    }
    state
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn settings(dir: &Path, state: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix("/proc/sys").expect("below").display().to_string();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => settings(&path, state),
            Ok(_) if !LIVELY.iter().any(|known| *known == name) => {
                state.insert(name, read(&path));
            }
            _ => {}
        }
    }
}

fn names(dir: &Path) -> String {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    format!("{names:?}")
}

/// All of this file system that somebody may write to: settings, unlike what only tells.
fn writable(dir: &Path, device: u64, state: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let skipped = stat.dev() != device
            || path.starts_with(SHARES_OF_CACHES)
            || BINARY.iter().any(|prefix| name.starts_with(prefix));
        if skipped {
            continue;
        } else if stat.is_dir() {
            writable(&path, device, state);
        } else if stat.is_file() && stat.mode() & 0o222 != 0 && stat.mode() & 0o444 != 0 {
            state.insert(path.display().to_string(), read(&path));
        }
    }
}

/// Files of a cgroup that set something (use and events change by themselves).
fn limits(dir: &Path, state: &mut BTreeMap<String, String>) {
    const SET: [&str; 8] =
        ["max", "high", "low", "min", "weight", "limit_in_bytes", "release_agent", "shares"];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if SET.iter().any(|suffix| name.ends_with(suffix)) {
            state.insert(entry.path().display().to_string(), read(&entry.path()));
        }
    }
}

/// Wall clock minus monotonic clock: changes only when somebody sets one.
fn clock_offset() -> i64 {
    let seconds = |clock| clock_gettime(clock).tv_sec;
    seconds(ClockId::Realtime) - seconds(ClockId::Monotonic)
}

#[test]
fn the_host_is_as_before() {
    let _world = alone();
    // What is made for the first container and kept (bridges' settings, modules) is there before.
    container().run(["true"]).ok();
    let (before, clock) = (state(), clock_offset());
    let text = judge(container().run([ATTACKER, "host"]), 4);
    assert!(text.contains("settings in /proc/sys that took another value"), "{text}");
    let (after, now) = (state(), clock_offset());
    let mut changed: Vec<String> = Vec::new();
    for (name, value) in &before {
        let new = after.get(name);
        // Caches of the kernel and devices of other programs may be gone meanwhile.
        let gone = new.is_none() && name.starts_with("/sys/");
        if new != Some(value) && !gone {
            restore(name, value);
            changed.push(format!("{name}: {value:?} became {new:?}"));
        }
    }
    assert!(changed.is_empty(), "changed on the host:\n{}", changed.join("\n"));
    assert!((clock - now).abs() <= 1, "the clock was set by {} s", now - clock);
}

/// A machine that was damaged by a failed test is to work again.
fn restore(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    if path.is_file() {
        let _ = fs::write(path, value);
    }
}

#[test]
fn limits_can_not_be_lifted() {
    let _world = alone();
    let world = World::current();
    let limits = ["--ulimit", "nofile=200:200", "--ulimit", "core=0", "--oom-score-adj", "100"];
    judge(container().args(limits).run([ATTACKER, "host"]), 4);
    if !world.has_controllers("limits_can_not_be_lifted", &["pids", "memory"]) {
        return;
    }
    let limited = container().args(["--pids-limit", "40", "--memory", "64m"]);
    let running = limited.start(["sleep", "1000"]);
    judge(running.exec(&[], [ATTACKER, "host"]), 4);
    // In a cgroup of its own making, too.
    let forks = "mkdir /sys/fs/cgroup/x && echo $$ >/sys/fs/cgroup/x/cgroup.procs
        for i in $(seq 80); do sleep 30 & done";
    let refused = running.sh(forks);
    let text = refused.stdout + &refused.stderr;
    assert!(text.to_lowercase().contains("fork"), "80 processes where 40 are allowed: {text}");
    let count = running.cgroup("pids").join("pids.current");
    let count: u32 = fs::read_to_string(&count).unwrap().trim().parse().unwrap();
    assert!(count <= 40, "{count} processes");
}

/// Programs for the kernel are loaded by nobody inside: there is no file system that would delegate it.
#[test]
fn loading_of_bpf_programs_is_not_delegated() {
    let _world = shared();
    let script = "mkdir /b
        for options in rw delegate_cmds=any delegate_cmds=prog_load,delegate_progs=cgroup_device; do
            mount -t bpf -o $options b /b && echo $options
            unshare --user --map-root-user --mount mount -t bpf -o $options b /b && echo $options nested
        done
        echo end";
    assert_eq!(Container::new(BOOKWORM).sh(script).ok(), "end");
}
