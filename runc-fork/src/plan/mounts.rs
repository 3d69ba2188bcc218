//! The mounts of a spec, sorted by who must make them.
//!
//! Almost every mount is made by the host side, before the container's own mount namespace exists:
//! the kernel then locks it. Three types belong to a namespace that only init is in; init makes
//! them itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;

use super::options::MountOptions;

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// procfs of the container's pid namespace.
    Proc,
    /// sysfs of the container's network namespace.
    Sysfs,
    /// A new tmpfs.
    Tmpfs,
    /// A directory or file of the host.
    Bind(PathBuf),
    /// cgroup2, rooted at the container's cgroup namespace; made by init.
    Cgroup,
    /// A new devpts; made by init.
    Devpts,
    /// The POSIX message queues of the container's ipc namespace; made by init.
    Mqueue,
    /// Any other file system type with its source.
    Other {
        /// Type name, filesystems(5).
        fs_type: String,
        /// The `source` of the mount.
        source: String,
    },
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// What.
    pub source: Source,
    /// Where, absolute inside the container.
    pub destination: PathBuf,
    /// How.
    pub options: MountOptions,
    /// The source is not to be ID-mapped (`SYSBOX_SKIP_UID_SHIFT`).
    pub skip_idmap: bool,
}

impl MountPlan {
    /// Reads one entry of the spec's `mounts`. `bundle` is what a relative bind source is
    /// relative to.
    pub fn new(mount: &oci::Mount, bundle: &Path) -> Result<Self> {
        let destination = mount.destination().clone();
        let words = mount.options().iter().flatten().map(String::as_str);
        let options = MountOptions::parse(words);
        let fs_type = mount.typ().as_deref().unwrap_or_default();
        let given = mount.source().as_deref();
        let source = match fs_type {
            _ if options.bind || fs_type == "bind" => {
                let path = given.with_context(|| {
                    format!("mounts: the bind mount on {} has no source", destination.display())
                })?;
                Source::Bind(bundle.join(path))
            }
            "proc" => Source::Proc,
            "sysfs" => Source::Sysfs,
            "tmpfs" => Source::Tmpfs,
            "cgroup" | "cgroup2" => Source::Cgroup,
            "devpts" => Source::Devpts,
            "mqueue" => Source::Mqueue,
            "" => bail!("mounts: the mount on {} has no type", destination.display()),
            other => Source::Other {
                fs_type: other.to_owned(),
                source: given.map_or_else(|| other.to_owned(), |s| s.display().to_string()),
            },
        };
        Ok(Self { source, destination, options, skip_idmap: false })
    }

    /// A bind mount of a directory of the host.
    pub fn bind(source: PathBuf, destination: PathBuf) -> Self {
        let options = MountOptions::parse(["rbind", "rprivate"]);
        Self { source: Source::Bind(source), destination, options, skip_idmap: false }
    }

    /// Whether init makes this mount, inside its namespaces.
    pub fn made_by_init(&self) -> bool {
        matches!(self.source, Source::Cgroup | Source::Devpts | Source::Mqueue)
    }
}
