//! Making the container's directories, and giving them controllers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use crate::cgroup::{Cgroup, Driver, Hierarchy};
use crate::error::{Context, Error, Result};
use crate::file;
use crate::procs;
use crate::systemd::{self, Placeholder};

impl Cgroup {
    /// Makes the container's directory, and missing ones above it, in every hierarchy.
    ///
    /// * v2: switches on in the directories above whatever controllers they have, so that the
    ///   container gets all that the host can give; a controller that cannot be switched on (in use
    ///   by a v1 hierarchy, refused by a cgroup that has processes) is left out, and a limit that
    ///   needs it then fails in [`Cgroup::apply`] with its name.
    /// * v1 `cpuset`: copies the CPUs and memory nodes of the directory above, since the kernel
    ///   starts with none and refuses processes then.
    ///
    /// An existing directory is taken over if nothing runs in it.
    ///
    /// This is for the cgroupfs driver; [`Cgroup::create_with`] is for both.
    ///
    /// # Errors
    /// [`Error::InUse`] when something runs there; [`Error::Io`] otherwise. What was made by the
    /// failed call is removed again.
    pub fn create(&self) -> Result<()> {
        create_all(&self.hierarchies, None)
    }

    /// Makes the cgroup of container `id` by the driver that it was planned for: as
    /// [`Cgroup::create`], or by having systemd start a scope with the `limits` that systemd manages; in
    /// v1 hierarchies, of which systemd knows some only, the directories of the others are made beside.
    /// Either way all limits are still to be set by [`Cgroup::apply`].
    ///
    /// Keep the placeholder until the container's first process is in the cgroup.
    ///
    /// # Errors
    /// As [`Cgroup::create`], and [`Error::Systemd`]. What was made by the failed call is removed
    /// again.
    pub fn create_with(&self, id: &str, limits: &LinuxResources) -> Result<Placeholder> {
        match self.driver {
            Driver::Cgroupfs => self.create().map(|()| Placeholder::none()),
            Driver::Systemd => {
                let placeholder = systemd::start(self, id, limits)?;
                let (unified, v1): (Vec<_>, Vec<_>) =
                    self.hierarchies.iter().partition(|hierarchy| hierarchy.is_unified());
                unified.into_iter().for_each(enable_controllers_above);
                // systemd has made those whose controllers it knows, and put the placeholder there.
                create_all(v1, placeholder.pid())?;
                Ok(placeholder)
            }
        }
    }
}

/// Makes the directory in each of the hierarchies, or in none. In those that exist there may be the
/// process `tenant`.
fn create_all<'a>(
    hierarchies: impl IntoIterator<Item = &'a Hierarchy>,
    tenant: Option<i32>,
) -> Result<()> {
    let mut made = Vec::new();
    let result = hierarchies.into_iter().try_for_each(|h| create_in(h, tenant, &mut made));
    if result.is_err() {
        for dir in made.iter().rev() {
            // A directory that something has been put in meanwhile is not ours alone any more.
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

/// Switches on what systemd does not know of (hugetlb, rdma), from the root down.
fn enable_controllers_above(hierarchy: &Hierarchy) {
    let above = hierarchy.dir.ancestors().skip(1);
    let above: Vec<_> = above.take_while(|dir| dir.starts_with(&hierarchy.root)).collect();
    above.into_iter().rev().for_each(enable_controllers);
}

fn create_in(hierarchy: &Hierarchy, tenant: Option<i32>, made: &mut Vec<PathBuf>) -> Result<()> {
    let below = hierarchy.dir.strip_prefix(&hierarchy.root).map_err(|_| Error::BadPath {
        path: hierarchy.dir.display().to_string(),
        reason: "is not below the root of its hierarchy",
    })?;
    let cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
    let mut parent = hierarchy.root.clone();
    for part in below {
        let dir = parent.join(part);
        let new = make(&dir)?;
        if new {
            made.push(dir.clone());
        } else if dir == hierarchy.dir && procs::in_use(&dir, tenant).context("look into", &dir)? {
            return Err(Error::InUse { path: dir });
        } else if dir == hierarchy.dir && is_frozen(&dir) {
            return Err(Error::Frozen { path: dir });
        }
        if hierarchy.is_unified() {
            enable_controllers(&parent);
        }
        if cpuset {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&parent, &dir, name).context("copy the cpuset to", dir.join(name))?;
            }
        }
        parent = dir;
    }
    Ok(())
}

/// Whether somebody has frozen it, in the file of either version.
fn is_frozen(dir: &Path) -> bool {
    let says = |name, word| file::read(dir, name).is_ok_and(|text| text.trim() == word);
    says("freezer.state", "FROZEN") || says("cgroup.freeze", "1")
}

/// Makes one directory; `false` if it is there already.
fn make(dir: &Path) -> Result<bool> {
    match fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).context("create cgroup", dir),
    }
}

/// Switches on, for the children of `dir`, every controller that `dir` has.
fn enable_controllers(dir: &Path) {
    let read = |name| file::read(dir, name).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let available = read("cgroup.controllers");
    let wanted: Vec<String> = available
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() || file::write(dir, "cgroup.subtree_control", &wanted.join(" ")).is_ok() {
        return;
    }
    // The kernel takes a line wholly or not at all: find out which controllers it does give.
    for controller in wanted {
        let _ = file::write(dir, "cgroup.subtree_control", &controller);
    }
}

/// Copies a cpuset setting from `parent` to `dir`, unless `dir` has one.
fn inherit(parent: &Path, dir: &Path, name: &str) -> io::Result<()> {
    if !file::read(dir, name)?.trim().is_empty() {
        return Ok(());
    }
    let value = file::read(parent, name)?;
    file::write(dir, name, value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Mount};

    fn plain(root: &Path, controllers: Option<&[&str]>) -> Mount {
        fs::create_dir_all(root).unwrap();
        Mount {
            controllers: controllers.map(|names| names.iter().map(|n| n.to_string()).collect()),
            root: root.to_owned(),
            own: PathBuf::new(),
        }
    }

    #[test]
    fn controllers_are_switched_on_above_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::write(root.join("cgroup.subtree_control"), "memory\n").unwrap();
        enable_controllers(root);
        // A plain file keeps the start of what was there beyond what was written.
        let written = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap();
        assert_eq!(written.trim(), "+cpu +pids");
    }

    #[test]
    fn cpuset_is_inherited_once() {
        let dir = tempfile::tempdir().unwrap();
        let child = dir.path().join("child");
        fs::create_dir(&child).unwrap();
        fs::write(dir.path().join("cpuset.cpus"), "0-3\n").unwrap();
        fs::write(child.join("cpuset.cpus"), "\n").unwrap();
        inherit(dir.path(), &child, "cpuset.cpus").unwrap();
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap(), "0-3");
        fs::write(child.join("cpuset.cpus"), "1\n").unwrap();
        inherit(dir.path(), &child, "cpuset.cpus").unwrap();
        assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap(), "1\n");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
        let mounts = vec![plain(&good, None), plain(&bad, Some(&["memory"]))];
        // A file where a directory of the second hierarchy has to be.
        fs::write(bad.join("docker"), "").unwrap();
        let cgroup = Cgroup::plan(&Layout::from_mounts(mounts), Some("/docker/ID"), "ID").unwrap();
        let error = cgroup.create().unwrap_err();
        assert!(error.to_string().contains("bad/docker/ID"), "{error}");
        assert!(!good.join("docker").exists());
    }
}
