//! The directories of one container, one per hierarchy.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::{Layout, Mount};
use crate::path::{self, Wanted};

/// Who makes the container's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This crate, by `mkdir`. `linux.cgroupsPath` is a path.
    #[default]
    Cgroupfs,
    /// systemd, as a transient scope (`--systemd-cgroup`). `linux.cgroupsPath` is
    /// `slice:prefix:name`.
    Systemd,
}

/// The v1 hierarchy in which systemd keeps its units, beside the unified one, where controllers are in v1.
pub(crate) const SYSTEMD: &str = "name=systemd";

/// The container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Controllers of a v1 hierarchy; empty for the unified one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// Mount point of the hierarchy: directories are only ever made below it.
    pub root: PathBuf,
    /// The container's directory.
    pub dir: PathBuf,
}

impl Hierarchy {
    /// The unified (v2) hierarchy?
    pub fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// The cgroup of one container, in every hierarchy of the host.
///
/// A value of this type only says where the directories are; it owns nothing and can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub(crate) driver: Driver,
    pub(crate) hierarchies: Vec<Hierarchy>,
}

impl Cgroup {
    /// Directories for a container under the cgroupfs driver: an absolute `cgroups_path` is below
    /// the root of each hierarchy; a relative one, or the `id` where there is none, is below our own
    /// cgroup (v1) or beside it (v2, where a cgroup with processes cannot give controllers to
    /// children). Pure: nothing is created.
    ///
    /// # Errors
    /// [`Error::BadPath`] for a path that names the root of a hierarchy.
    pub fn plan(layout: &Layout, cgroups_path: Option<&str>, id: &str) -> Result<Cgroup> {
        Self::plan_with(Driver::Cgroupfs, layout, cgroups_path, id)
    }

    /// Like [`Cgroup::plan`], for either driver. For [`Driver::Systemd`] the path is
    /// `slice:prefix:name`, which is the scope `prefix-name.scope` in nested slices, at the same place in
    /// every hierarchy.
    ///
    /// # Errors
    /// [`Error::BadPath`]; [`Error::NoHierarchy`] for a layout without any hierarchy.
    pub fn plan_with(
        driver: Driver,
        layout: &Layout,
        cgroups_path: Option<&str>,
        id: &str,
    ) -> Result<Cgroup> {
        let wanted = match driver {
            Driver::Cgroupfs => path::wanted(cgroups_path, id)?,
            Driver::Systemd => Wanted::FromRoot(path::systemd(cgroups_path, id)?),
        };
        let pure = layout.is_pure_v2();
        let ours = |mount: &&Mount| match (&mount.controllers, driver) {
            (_, Driver::Cgroupfs) | (None, _) => true,
            // A named hierarchy beside a unified one that has all controllers is not systemd's; of
            // several on a host with controllers in v1, only its own is.
            (Some(names), Driver::Systemd) => {
                !pure && names.iter().all(|name| name == SYSTEMD || !name.starts_with("name="))
            }
        };
        let hierarchies: Vec<_> = layout
            .mounts()
            .iter()
            .filter(ours)
            .map(|mount| {
                let start = match (&wanted, &mount.controllers) {
                    (Wanted::FromRoot(_), _) => Path::new(""),
                    (Wanted::FromOwn(_), Some(_)) => &mount.own,
                    (Wanted::FromOwn(_), None) => mount.own.parent().unwrap_or(Path::new("")),
                };
                let (Wanted::FromRoot(path) | Wanted::FromOwn(path)) = &wanted;
                Hierarchy {
                    controllers: mount.controllers.clone().unwrap_or_default(),
                    root: mount.root.clone(),
                    dir: mount.root.join(start).join(path),
                }
            })
            .collect();
        if hierarchies.is_empty() {
            return Err(Error::NoHierarchy);
        }
        Ok(Cgroup { driver, hierarchies })
    }

    /// The driver this cgroup was planned for.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The container's directory in the unified hierarchy: what it sees as `/sys/fs/cgroup`, and
    /// what `CLONE_INTO_CGROUP` takes.
    pub fn unified(&self) -> Option<&Path> {
        self.hierarchies.iter().find(|h| h.is_unified()).map(|h| h.dir.as_path())
    }

    /// The container's v1 directories by controller; named hierarchies are `name=NAME`. Controllers
    /// that are mounted together have the same directory.
    pub fn v1(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.hierarchies
            .iter()
            .flat_map(|h| h.controllers.iter().map(|name| (name.as_str(), h.dir.as_path())))
    }

    /// The container's directory in the v1 hierarchy of `controller`.
    pub fn v1_dir(&self, controller: &str) -> Option<&Path> {
        self.v1().find(|(name, _)| *name == controller).map(|(_, dir)| dir)
    }

    /// Every directory, the unified one first.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The directory that stands for the container in messages, and whose tree has all processes.
    pub(crate) fn main_dir(&self) -> &Path {
        &self.hierarchies[0].dir
    }

    /// Does any of the directories exist?
    pub fn exists(&self) -> bool {
        self.hierarchies.iter().any(|h| h.dir.is_dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let mount = |controllers: Option<&[&str]>, root: &str, own: &str| Mount {
            controllers: controllers.map(|names| names.iter().map(|n| n.to_string()).collect()),
            root: root.into(),
            own: own.into(),
        };
        Layout::from_mounts(vec![
            mount(None, "/c/unified", "user.slice/session.scope"),
            mount(Some(&["cpu", "cpuacct"]), "/c/cpu", "own"),
            mount(Some(&["memory"]), "/c/memory", ""),
        ])
    }

    #[test]
    fn absolute_path_is_below_the_roots() {
        let cgroup = Cgroup::plan(&layout(), Some("/docker/ID"), "ID").unwrap();
        assert_eq!(cgroup.unified(), Some(Path::new("/c/unified/docker/ID")));
        assert_eq!(cgroup.v1_dir("cpuacct"), Some(Path::new("/c/cpu/docker/ID")));
        assert_eq!(cgroup.v1_dir("memory"), Some(Path::new("/c/memory/docker/ID")));
        assert_eq!(cgroup.v1_dir("pids"), None);
    }

    #[test]
    fn relative_path_is_near_ourselves() {
        let cgroup = Cgroup::plan(&layout(), None, "ID").unwrap();
        assert_eq!(cgroup.unified(), Some(Path::new("/c/unified/user.slice/ID")));
        assert_eq!(cgroup.v1_dir("cpu"), Some(Path::new("/c/cpu/own/ID")));
        assert_eq!(cgroup.v1_dir("memory"), Some(Path::new("/c/memory/ID")));
    }

    #[test]
    fn systemd_is_below_the_roots() {
        let path = Some("a-b.slice:docker:ID");
        let plan = |mounts: &[(Option<&str>, &str)]| {
            let mount = |(controllers, root): &(Option<&str>, &str)| Mount {
                controllers: controllers.map(|name| vec![name.to_owned()]),
                root: root.into(),
                own: "own.slice".into(),
            };
            let layout = Layout::from_mounts(mounts.iter().map(mount).collect());
            let cgroup = Cgroup::plan_with(Driver::Systemd, &layout, path, "ID").unwrap();
            cgroup.hierarchies().iter().map(|h| h.dir.display().to_string()).collect::<Vec<_>>()
        };
        let dir = |root: &str| format!("{root}/a.slice/a-b.slice/docker-ID.scope");
        let pure = plan(&[(None, "/c"), (Some("name=systemd"), "/s"), (Some("name=x"), "/x")]);
        assert_eq!(pure, [dir("/c")]);
        let hybrid = plan(&[
            (None, "/c"),
            (Some("memory"), "/m"),
            (Some("name=systemd"), "/s"),
            (Some("name=x"), "/x"),
        ]);
        assert_eq!(hybrid, [dir("/c"), dir("/m"), dir("/s")]);
    }

    #[test]
    fn survives_the_state_file() {
        let cgroup = Cgroup::plan(&layout(), Some("/docker/ID"), "ID").unwrap();
        let text = serde_json::to_string(&cgroup).unwrap();
        assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), cgroup);
    }

    #[test]
    fn no_hierarchy() {
        let none = Layout::from_mounts(Vec::new());
        assert!(matches!(Cgroup::plan(&none, None, "ID"), Err(Error::NoHierarchy)));
    }
}
