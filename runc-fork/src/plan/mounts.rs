//! The mounts of a spec, sorted by who must make them.
//!
//! Almost every mount is made by the host side, before the container's own mount namespace exists:
//! the kernel then locks it. cgroup2 is rooted at a namespace that only init is in; init mounts it
//! itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;

use sysbox_kernel::mount::Propagation;
use sysbox_kernel::ns::IdMap;

use super::Ids;
use super::options::MountOptions;

/// The option of every file system that gives its files an SELinux context.
pub const LABEL: &str = "context";

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
    /// The same of a directory that the manager names. It may be in the container's own layer, where
    /// an earlier life of the container could have put links: none is followed.
    Store(PathBuf),
    /// cgroup2, rooted at the container's cgroup namespace; made by init.
    Cgroup,
    /// A new devpts, owned by the container's user namespace.
    Devpts,
    /// The POSIX message queues of the container's ipc namespace.
    Mqueue,
    /// Any other file system type by its name, filesystems(5).
    Other(String),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPlan {
    /// What.
    pub source: Source,
    /// What /proc/mounts shows as the source of a file system that has none: as the spec says, or
    /// its type.
    pub shown_source: String,
    /// Where, absolute inside the container.
    pub destination: PathBuf,
    /// How.
    pub options: MountOptions,
    /// Whether its source is ID-mapped.
    pub mapping: Mapping,
    /// `uidMappings` and `gidMappings` of the mount itself: from ids on disk to ids of the host.
    pub own_ids: Option<Ids>,
    /// The spec has a user namespace, so it means what it would mean to runc in one: attributes of the
    /// source stay that the options do not name, and `own_ids` lead to ids of the host. Otherwise they
    /// lead to ids inside.
    pub knows_user_namespace: bool,
    /// Propagation that init sets, once the mount namespace is the container's own.
    pub late_propagation: Option<(Propagation, bool)>,
}

/// Whether the source of a bind mount is ID-mapped, so that the host root's files are container
/// root's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Where its file system can; otherwise with a warning.
    #[default]
    WherePossible,
    /// Otherwise the container is not created (`SYSBOX_FSUID_MAP_FAIL_ON_ERROR`).
    Always,
    /// It is left as it is (`SYSBOX_SKIP_UID_SHIFT`).
    Never,
}

impl MountPlan {
    /// Reads one entry of the spec's `mounts`. `bundle` is what a relative bind source is
    /// relative to.
    pub fn new(mount: &oci::Mount, bundle: &Path) -> Result<Self> {
        let destination = mount.destination().clone();
        let words = mount.options().iter().flatten().map(String::as_str);
        let mut options = MountOptions::parse(words);
        let late_propagation = options
            .propagation
            .take_if(|(kind, _)| matches!(kind, Propagation::Shared | Propagation::Unbindable));
        if let Some((Propagation::Shared, recursive)) = late_propagation {
            // What the host mounts below the source shows up; never the other way round.
            options.propagation = Some((Propagation::Slave, recursive));
        }
        let fs_type = mount.typ().as_deref().unwrap_or_default();
        let given = mount.source().as_deref();
        let shown_source = given.filter(|source| !source.as_os_str().is_empty());
        let shown_source =
            shown_source.map_or_else(|| fs_type.to_owned(), |source| source.display().to_string());
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
            other => Source::Other(other.to_owned()),
        };
        let own_ids = own_ids(mount);
        if own_ids.is_some() && !matches!(source, Source::Bind(_)) {
            bail!(
                "mounts: {}: uidMappings and gidMappings are for bind mounts only",
                destination.display()
            );
        }
        Ok(Self {
            source,
            shown_source,
            destination,
            options,
            mapping: Mapping::default(),
            own_ids,
            knows_user_namespace: false,
            late_propagation,
        })
    }

    /// The store of an inner engine.
    pub fn store(source: PathBuf, destination: PathBuf) -> Self {
        let options = MountOptions::parse(["bind", "rprivate"]);
        Self {
            source: Source::Store(source),
            shown_source: String::new(),
            destination,
            options,
            mapping: Mapping::default(),
            own_ids: None,
            knows_user_namespace: false,
            late_propagation: None,
        }
    }

    /// Gives the files of a new file system this SELinux context, as runc does. What is bound has its
    /// own; proc, sysfs, mqueue and cgroup have those of the policy.
    pub fn take_label(&mut self, label: &str) {
        if matches!(self.source, Source::Tmpfs | Source::Devpts | Source::Other(_)) {
            self.options.data.push(format!("{LABEL}={label}"));
        }
    }

    /// The options of the file system itself, for `fsconfig(2)`.
    pub fn data(&self) -> impl Iterator<Item = (&str, &str)> {
        self.options.data.iter().map(|word| word.split_once('=').unwrap_or((word, "")))
    }
}

fn own_ids(mount: &oci::Mount) -> Option<Ids> {
    let convert = |maps: &Option<Vec<oci::LinuxIdMapping>>| -> Vec<IdMap> {
        maps.iter()
            .flatten()
            .map(|m| IdMap { inside: m.container_id(), outside: m.host_id(), count: m.size() })
            .collect()
    };
    let ids = Ids { uids: convert(mount.uid_mappings()), gids: convert(mount.gid_mappings()) };
    (!ids.uids.is_empty() || !ids.gids.is_empty()).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MountPlan> {
        MountPlan::new(&serde_json::from_str(json).unwrap(), Path::new("/bundle"))
    }

    #[test]
    fn shared_and_unbindable_are_left_to_init() {
        let shared =
            plan(r#"{"destination":"/a","source":"s","options":["rbind","rshared"]}"#).unwrap();
        assert_eq!(shared.late_propagation, Some((Propagation::Shared, true)));
        assert_eq!(shared.options.propagation, Some((Propagation::Slave, true)));
        assert_eq!(shared.source, Source::Bind("/bundle/s".into()));
        let slave =
            plan(r#"{"destination":"/a","source":"/s","options":["bind","slave"]}"#).unwrap();
        assert_eq!((slave.late_propagation, slave.own_ids), (None, None));
    }

    #[test]
    fn the_source_of_a_file_system_without_one_is_what_the_spec_says() {
        let shown = |json: &str| plan(json).unwrap().shown_source;
        let named = r#"{"destination":"/dev/shm","type":"tmpfs","source":"shm"}"#;
        assert_eq!(shown(named), "shm");
        for unnamed in [
            r#"{"destination":"/p","type":"proc"}"#,
            r#"{"destination":"/p","type":"proc","source":""}"#,
        ] {
            assert_eq!(shown(unnamed), "proc", "{unnamed}");
        }
    }

    #[test]
    fn new_file_systems_get_the_label() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let data = |json: &str| {
            let mut mount = plan(json).unwrap();
            mount.take_label(label);
            mount.data().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        let with = [("context".to_owned(), label.to_owned())];
        for labelled in ["tmpfs", "devpts", "ramfs"] {
            let json = format!(r#"{{"destination":"/a","type":"{labelled}"}}"#);
            assert_eq!(data(&json), with, "{labelled}");
        }
        for own in ["proc", "sysfs", "mqueue", "cgroup"] {
            let json = format!(r#"{{"destination":"/a","type":"{own}"}}"#);
            assert_eq!(data(&json), [], "{own}");
        }
        assert_eq!(data(r#"{"destination":"/a","source":"/s","options":["bind"]}"#), []);
    }

    #[test]
    fn mappings_of_its_own_are_for_bind_mounts() {
        let maps = r#""uidMappings":[{"containerID":0,"hostID":5,"size":1}],
            "gidMappings":[{"containerID":0,"hostID":5,"size":1}]"#;
        let bind = plan(&format!(
            r#"{{"destination":"/a","source":"/s","options":["bind","idmap"],{maps}}}"#
        ));
        assert_eq!(bind.unwrap().own_ids.unwrap().host_uid(0), Some(5));
        let tmpfs = plan(&format!(r#"{{"destination":"/a","type":"tmpfs",{maps}}}"#));
        assert!(tmpfs.unwrap_err().to_string().contains("bind mounts only"));
    }
}
