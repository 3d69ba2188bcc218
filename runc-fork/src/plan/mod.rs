//! From a system-container spec and the manager's answer to a plan: every decision is taken here,
//! without privilege and without touching the host, so that `run` only carries it out.

mod ids;
mod mounts;
mod namespaces;
mod options;
mod process;
mod schedule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::runtime as oci;
use sysbox_ipc::proto;
use sysbox_kernel::mount::Propagation;

use crate::spec::Options;

pub use ids::Ids;
pub use mounts::{LABEL, Mapping, MountPlan, Source};
pub use namespaces::{Joined, Namespaces, TimeOffsets};
pub use options::{LOCKED, MountOptions};
pub use process::{Capabilities, ProcessPlan};
pub use schedule::{MemoryPolicy, Schedule};

/// A device node to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Absolute path inside.
    pub path: PathBuf,
    /// File type bits, `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Device numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, ids inside.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
}

impl Device {
    /// A character device that belongs to root.
    pub fn character(path: &str, major: u32, minor: u32, mode: u32) -> Self {
        let kind = 0o020_000;
        Self { path: path.into(), kind, major, minor, mode, uid: 0, gid: 0 }
    }
}

/// Everything that `create` is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Container id.
    pub id: String,
    /// Root file system as the engine mounted it.
    pub rootfs: PathBuf,
    /// `root.readonly`
    pub root_read_only: bool,
    /// ID mappings.
    pub ids: Ids,
    /// Namespaces to make and to join.
    pub namespaces: Namespaces,
    /// `linux.mountLabel`, an SELinux context; `None` where it is empty.
    pub mount_label: Option<String>,
    /// Mounts in order; volumes of the manager last.
    pub mounts: Vec<MountPlan>,
    /// `linux.rootfsPropagation` and whether for the whole tree; set by init.
    pub root_propagation: Option<(Propagation, bool)>,
    /// `linux.maskedPaths`
    pub masked_paths: Vec<PathBuf>,
    /// `linux.readonlyPaths`
    pub read_only_paths: Vec<PathBuf>,
    /// `linux.devices`
    pub devices: Vec<Device>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `linux.sysctl`
    pub sysctl: BTreeMap<String, String>,
    /// `linux.netDevices`: names on the host and inside.
    pub network_devices: BTreeMap<String, String>,
    /// The process.
    pub process: ProcessPlan,
    /// Whether /dev/console is wanted.
    pub terminal: bool,
}

impl Plan {
    /// Makes the plan.
    pub fn new(
        id: &str,
        bundle: &Path,
        spec: &oci::Spec,
        registered: &proto::Registered,
        options: &Options,
    ) -> Result<Self> {
        let root = spec.root().as_ref().context("root is missing in config.json")?;
        let linux = spec.linux().as_ref().context("linux is missing in config.json")?;
        let process = spec.process().as_ref().context("process is missing in config.json")?;
        let mount_label = linux.mount_label().clone().filter(|label| !label.is_empty());
        let mut mounts = Vec::new();
        for mount in spec.mounts().iter().flatten() {
            let mut mount = MountPlan::new(mount, bundle)?;
            mount.mapping = if options.skip_uid_shift.contains(&mount.destination) {
                Mapping::Never
            } else if options.require_id_mapping {
                Mapping::Always
            } else {
                Mapping::WherePossible
            };
            if let Some(label) = &mount_label {
                mount.take_label(label);
            }
            mounts.push(mount);
        }
        for volume in &registered.volumes {
            let (source, destination) = (&volume.source, &volume.destination);
            mounts.push(MountPlan::store(source.into(), destination.into()));
        }
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(Into::into).collect();
        let process = ProcessPlan::new(process, spec.linux().as_ref())?;
        Ok(Self {
            id: id.to_owned(),
            rootfs: bundle.join(root.path()),
            root_read_only: root.readonly().unwrap_or(false),
            ids: Ids::new(&registered.uid_mappings, &registered.gid_mappings),
            namespaces: Namespaces::new(linux)?,
            mount_label,
            mounts,
            root_propagation: linux.rootfs_propagation().as_deref().and_then(root_propagation),
            masked_paths: paths(linux.masked_paths()),
            read_only_paths: paths(linux.readonly_paths()),
            devices: linux.devices().iter().flatten().map(device).collect(),
            hostname: spec.hostname().clone(),
            domainname: spec.domainname().clone(),
            sysctl: linux.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            network_devices: network_devices(linux),
            terminal: process.terminal,
            process,
        })
    }
}

impl Plan {
    /// Reads the mounts as whoever wrote `spec` meant them: with a user namespace in it, or not.
    pub fn heed_user_namespace(&mut self, spec: &oci::Spec) {
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let kind = oci::LinuxNamespaceType::User;
        if !namespaces.into_iter().flatten().any(|n| n.typ() == kind) {
            return;
        }
        let of_spec = |mount: &MountPlan| {
            let mut mounts = spec.mounts().iter().flatten();
            mounts.any(|m| *m.destination() == mount.destination)
        };
        let says_mapping = |m: &MountPlan| m.own_ids.is_some() || m.options.idmap.is_some();
        // Who says of one mount how it is mapped says of the others that they are not.
        let says_all = self.mounts.iter().any(says_mapping);
        for mount in &mut self.mounts {
            mount.knows_user_namespace = true;
            if says_all && of_spec(mount) && !says_mapping(mount) {
                mount.mapping = Mapping::Never;
            }
        }
    }
}

fn network_devices(linux: &oci::Linux) -> BTreeMap<String, String> {
    let devices = linux.net_devices().iter().flatten();
    devices
        .map(|(name, device)| {
            let inside = device.name().clone().filter(|inside| !inside.is_empty());
            (name.clone(), inside.unwrap_or_else(|| name.clone()))
        })
        .collect()
}

/// The root of the tree comes from no mount of the host, so to be a slave has no meaning for it.
fn root_propagation(word: &str) -> Option<(Propagation, bool)> {
    let asked = MountOptions::parse([word]).propagation;
    asked.filter(|(kind, _)| *kind != Propagation::Slave)
}

fn device(device: &oci::LinuxDevice) -> Device {
    let kind = match device.typ() {
        oci::LinuxDeviceType::B => 0o060_000,
        oci::LinuxDeviceType::P => 0o010_000,
        _ => 0o020_000,
    };
    let number = |n: i64| u32::try_from(n).unwrap_or(0);
    Device {
        path: device.path().clone(),
        kind,
        major: number(device.major()),
        minor: number(device.minor()),
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}
