//! Clears up after a runtime that was killed in the middle of `create`.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use rustix::process::Signal;
use sysbox_cgroups::{Cgroup, Layout, rdt};

use crate::registry::Cgroups;

/// Kills what is in the container's cgroups, and removes them and the runtime's directory of it.
///
/// The paths were told by the runtime. Only those are touched that are named after the container
/// (and lie in a mounted cgroup hierarchy), and only if none was there before the runtime began: a
/// path that is shared, or was told wrongly, is left alone.
pub fn remove(id: &str, cgroups: &Cgroups, state_dir: &Path) {
    let id = without_mark(id);
    let dirs = std::iter::once(&cgroups.unified).chain(cgroups.v1.values()).map(PathBuf::from);
    let named = |dir: &PathBuf| is_of(dir, id) || is_scope_of(dir, id);
    let dirs: Vec<_> = dirs.filter(|dir| named(dir) && dir.is_dir()).collect();
    if !cgroups.foreign && !dirs.is_empty() {
        match Layout::detect() {
            Ok(layout) => dirs.iter().for_each(|dir| remove_cgroup(&layout, id, dir)),
            Err(e) => tracing::warn!(container = id, "its cgroups cannot be removed: {e}"),
        }
    }
    if is_of(state_dir, id) {
        remove_rdt(id, &state_dir.join(rdt::RECORD));
        match fs::remove_dir_all(state_dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(container = id, dir = %state_dir.display(), "cannot be removed: {e}");
            }
            _ => {}
        }
    }
}

/// The runtime's own id of the container: it adds a mark of its `--root` to ids that another root
/// may have, too.
fn without_mark(id: &str) -> &str {
    match id.rsplit_once('+') {
        Some((own, mark)) if mark.len() == 8 && mark.bytes().all(|b| b.is_ascii_hexdigit()) => own,
        _ => id,
    }
}

/// Whether `dir` is an absolute path without `..` whose last component is the container's id.
fn is_of(dir: &Path, id: &str) -> bool {
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    dir.is_absolute() && dir.components().all(plain) && dir.file_name().is_some_and(|n| n == id)
}

/// Whether `dir` is the scope that the systemd driver makes for the container.
fn is_scope_of(dir: &Path, id: &str) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    let scope = name.and_then(|name| name.strip_suffix(".scope"));
    let is_its =
        scope.is_some_and(|s| s == id || s.strip_suffix(id).is_some_and(|p| p.ends_with('-')));
    is_its && is_of(&dir.with_file_name(id), id)
}

/// Its class of service in resctrl, which the runtime has noted before it made it.
fn remove_rdt(id: &str, record: &Path) {
    let Ok(text) = fs::read(record) else { return };
    let group = serde_json::from_slice::<rdt::Group>(&text).map_err(|e| e.to_string());
    if let Err(e) = group.and_then(|group| group.remove().map_err(|e| e.to_string())) {
        tracing::warn!(container = id, record = %record.display(), "clearing up after its runtime: {e}");
    }
}

fn remove_cgroup(layout: &Layout, id: &str, dir: &Path) {
    let Some(mount) = layout.mounts().iter().find(|m| dir.starts_with(&m.root)) else {
        return;
    };
    let Ok(below) = dir.strip_prefix(&mount.root) else {
        return;
    };
    let path = Path::new("/").join(below);
    let Some(path) = path.to_str() else { return };
    let layout = Layout::from_mounts(vec![mount.clone()]);
    let removed = Cgroup::plan(&layout, Some(path), id).and_then(|cgroup| {
        cgroup.kill_all(Signal::KILL.as_raw())?;
        cgroup.remove()
    });
    match removed {
        Ok(()) => {
            tracing::info!(container = id, cgroup = %dir.display(), "removed what its runtime left")
        }
        Err(e) => tracing::warn!(container = id, "clearing up after its runtime: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_the_container_are_touched() {
        assert!(is_of(Path::new("/sys/fs/cgroup/docker/abc"), "abc"));
        for other in ["/sys/fs/cgroup/docker", "abc", "/x/../abc", "/x/abc/..", "/", ""] {
            assert!(!is_of(Path::new(other), "abc"), "{other}");
        }
    }

    #[test]
    fn a_mark_of_the_root_is_no_part_of_the_name() {
        assert_eq!(without_mark("web+0123abcd"), "web");
        assert_eq!(without_mark("web+1"), "web+1");
    }

    #[test]
    fn scopes_of_the_systemd_driver_count_too() {
        let scope = |name: &str| PathBuf::from("/sys/fs/cgroup/system.slice").join(name);
        assert!(is_scope_of(&scope("docker-abc.scope"), "abc"));
        assert!(is_scope_of(&scope("abc.scope"), "abc"));
        assert!(!is_scope_of(&scope("docker-xabc.scope"), "abc"));
        assert!(!is_scope_of(&scope("docker-abc.service"), "abc"));
    }

    #[test]
    fn a_state_directory_goes_away_and_a_shared_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("c1");
        fs::create_dir(&state).unwrap();
        fs::write(state.join("state.json"), "{}").unwrap();
        remove("c1", &Cgroups::default(), dir.path());
        assert!(state.exists());
        remove("c1", &Cgroups::default(), &state);
        remove("c1", &Cgroups::default(), &state);
        assert!(!state.exists() && dir.path().exists());
    }

    #[test]
    fn what_was_made_in_resctrl_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let (state, root) = (dir.path().join("c1"), dir.path().join("resctrl"));
        fs::create_dir_all(root.join("gold")).unwrap();
        let resctrl = rdt::Resctrl::at(&root);
        for (wanted, made) in [("{}", "c1"), (r#"{"closID": "gold"}"#, "gold")] {
            let wanted = serde_json::from_str(wanted).unwrap();
            let group = rdt::Group::plan(&resctrl, "c1", &wanted).unwrap();
            fs::create_dir(&state).unwrap();
            fs::write(state.join(rdt::RECORD), serde_json::to_vec(&group).unwrap()).unwrap();
            group.create(&wanted).unwrap();
            assert!(root.join(made).exists());
            remove("c1", &Cgroups::default(), &state);
        }
        assert!(!root.join("c1").exists() && root.join("gold").exists());
    }
}
