//! What is known of a container: the manager's record, the runtime's state, the cgroup's numbers and
//! the engine's name for it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use serde::Deserialize;
use sysbox_cgroups::Cgroup;

use super::names;
use super::proto;
use crate::ids::IdMapping;
use crate::manager::Manager;
use crate::registry::{Record, State as Life, process};

/// Limits from here on are none: cgroup v1 shows the largest number of pages.
const NO_LIMIT: u64 = 1 << 60;

/// What is of interest in the runtime's `state.json`.
#[derive(Debug, Default, Deserialize)]
struct RuntimeState {
    #[serde(default)]
    bundle: PathBuf,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    cgroup: Option<Cgroup>,
    #[serde(default)]
    system_container: bool,
}

impl RuntimeState {
    fn read(record: &Record) -> Self {
        let text = fs::read(record.state_dir.join("state.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// The containers whose id begins with `which`, or that have this name; all if it is empty.
pub fn list(manager: &Manager, which: &str) -> Vec<proto::Container> {
    let all = manager.records();
    let described = all.iter().map(|record| describe(manager, record));
    described.filter(|c| c.name == which || c.id.starts_with(which)).collect()
}

/// The name of a container; empty if it has none.
pub fn name(record: &Record) -> String {
    let state = RuntimeState::read(record);
    names::find(&record.id, &record.rootfs, &state.annotations).name
}

fn describe(manager: &Manager, record: &Record) -> proto::Container {
    let runtime = RuntimeState::read(record);
    let name = names::find(&record.id, &record.rootfs, &runtime.annotations);
    let is_paused = || runtime.cgroup.as_ref().is_some_and(|c| c.frozen().unwrap_or(false));
    let state = match record.state {
        Life::Running if is_paused() => "paused",
        state => state.name(),
    };
    let age_ns = process::now_ns().saturating_sub(record.created_boottime_ns);
    let volume = |v: &crate::registry::VolumeRecord| proto::Volume {
        container_id: record.id.clone(),
        container_name: name.name.clone(),
        state: state.to_owned(),
        source: text(&manager.volume_path(&record.id, v)),
        destination: v.destination.clone(),
        bytes: 0,
    };
    proto::Container {
        id: record.id.clone(),
        engine: name.engine.to_owned(),
        state: state.to_owned(),
        pid: record.init.map_or(0, |init| init.pid),
        uptime_ms: if record.is_live() { age_ns / 1_000_000 } else { 0 },
        uid_mappings: record.uid_mappings.iter().map(mapping).collect(),
        gid_mappings: record.gid_mappings.iter().map(mapping).collect(),
        volumes: record.volumes.iter().map(volume).collect(),
        usage: runtime.cgroup.as_ref().filter(|cgroup| cgroup.exists()).map(usage),
        rootfs: text(&record.rootfs),
        bundle: text(&runtime.bundle),
        state_dir: text(&record.state_dir),
        owner: record.owner.as_ref().map(|owner| text(&owner.path)).unwrap_or_default(),
        cgroups: Some(proto::CgroupPaths {
            unified: record.cgroups.unified.clone(),
            v1: record.cgroups.v1.clone(),
        }),
        key: record.key,
        system_container: runtime.system_container,
        annotations: runtime.annotations,
        name: name.name,
    }
}

fn usage(cgroup: &Cgroup) -> proto::Usage {
    let stats = cgroup.stats();
    let memory = stats.memory.usage;
    proto::Usage {
        memory_bytes: memory.usage.unwrap_or(0),
        memory_limit_bytes: memory.limit.filter(|limit| *limit < NO_LIMIT).unwrap_or(0),
        cpu_ns: stats.cpu.usage.total.unwrap_or(0),
        tasks: stats.pids.current.unwrap_or(0),
    }
}

fn mapping(m: &IdMapping) -> proto::IdMapping {
    proto::IdMapping { container_id: m.inside, host_id: m.outside, size: m.count }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Space that a directory takes on its medium, hard links counted once. What is in it was made by a
/// container: neither symbolic links nor mounts are followed, and what is too deep is left out.
pub fn space(dir: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(top) = rustix::fs::open(dir, flags, Mode::empty()) else { return 0 };
    let own = rustix::fs::fstat(&top).map_or(0, |stat| stat.st_blocks);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let (mut blocks, mut seen, mut left) = (own, HashSet::new(), vec![PathBuf::from(".")]);
    while let Some(path) = left.pop() {
        let opened = openat2(&top, &path, flags, Mode::empty(), resolve);
        let Ok(entries) = opened.and_then(Dir::new) else { continue };
        // Read to its end before the next one is opened: few descriptors, however deep it goes.
        let names: Vec<_> = entries.flatten().map(|e| e.file_name().to_owned()).collect();
        let Ok(parent) = openat2(&top, &path, flags, Mode::empty(), resolve) else { continue };
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            let Ok(found) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if found.st_nlink > 1
                && FileType::from_raw_mode(found.st_mode) != FileType::Directory
                && !seen.insert((found.st_dev, found.st_ino))
            {
                continue;
            }
            blocks += found.st_blocks;
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                left.push(path.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    // Of 512 bytes, whatever the file system: stat(2).
    u64::try_from(blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_take_their_space_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = dir.path().join("d/file");
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        fs::hard_link(&file, dir.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let taken = space(dir.path());
        assert!(((1 << 20)..(1 << 20) + 64 * 1024).contains(&taken), "{taken}");
    }
}
