//! What to do with a request: pure functions of what it says and of who makes it.
//!
//! "No" always means that the call continues, so that the kernel itself refuses it, in its own
//! words; see the rules in the [module above](super).

use sysbox_kernel::notify::NamespaceId;

/// Bits of capabilities(7).
pub mod capability {
    /// `CAP_DAC_OVERRIDE`
    pub const DAC_OVERRIDE: u64 = 1 << 1;
    /// `CAP_DAC_READ_SEARCH`
    pub const DAC_READ_SEARCH: u64 = 1 << 2;
    /// `CAP_SYS_ADMIN`
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// `CAP_MKNOD`
    pub const MKNOD: u64 = 1 << 27;
}

/// A file system that the broker mounts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewMount {
    /// procfs of the caller's pid namespace, with the virtualised files.
    Proc,
    /// sysfs of the caller's network namespace, with the virtualised files.
    Sysfs,
    /// An empty read-only directory in place of a file system that the kernel mounts for nobody
    /// but the host.
    Empty,
}

/// File system types that get an empty directory, and why. All of them are refused by the kernel
/// in a user namespace, and hold nothing that a container could use.
const EMPTY: [(&str, &str); 6] = [
    ("debugfs", "sys-kernel-debug.mount of systemd; unit failed, system `degraded` otherwise"),
    ("tracefs", "sys-kernel-tracing.mount of systemd, likewise"),
    ("configfs", "sys-kernel-config.mount of systemd, likewise"),
    ("fusectl", "sys-fs-fuse-connections.mount of systemd, likewise"),
    ("securityfs", "systemd and security tools mount it at start and stop at an error"),
    ("pstore", "systemd mounts it early in the boot"),
];

/// Whether mounts of this file system type are made by the broker.
pub fn new_mount(file_system: &[u8]) -> Option<NewMount> {
    match file_system {
        b"proc" => Some(NewMount::Proc),
        b"sysfs" => Some(NewMount::Sysfs),
        name if EMPTY.iter().any(|(empty, _)| empty.as_bytes() == name) => Some(NewMount::Empty),
        _ => None,
    }
}

const MS_RDONLY: u64 = 1;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
const MS_MOVE: u64 = 0x2000;
const MS_PROPAGATION: u64 = 0xf << 17;
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;

/// What a mount(2) does, of the things that the broker has to do with. The flags are without the
/// magic number of old callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountAction {
    /// Makes a new mount.
    New {
        /// `MS_*`
        flags: u64,
    },
    /// Changes the flags of a mount.
    Remount {
        /// Whether it is to be read-only afterwards.
        read_only: bool,
    },
}

/// Takes the flags of a mount(2) apart as the kernel's `path_mount()` does; `None` for binds,
/// moves and changes of propagation.
pub fn mount_action(flags: u64) -> Option<MountAction> {
    let flags = match flags & MS_MGC_MSK {
        MS_MGC_VAL => flags & !MS_MGC_MSK,
        _ => flags,
    };
    if flags & MS_REMOUNT != 0 {
        return Some(MountAction::Remount { read_only: flags & MS_RDONLY != 0 });
    }
    let is_new = flags & (MS_BIND | MS_MOVE | MS_PROPAGATION) == 0;
    is_new.then_some(MountAction::New { flags })
}

const MNT_FORCE: u32 = 1;
const UMOUNT_NOFOLLOW: u32 = 8;

/// Whether an umount with these flags is one that the broker may carry out. `MNT_DETACH` takes
/// everything below along without help; `MNT_EXPIRE` has a protocol of its own.
pub fn is_plain_umount(flags: u32) -> bool {
    flags & !(MNT_FORCE | UMOUNT_NOFOLLOW) == 0
}

/// Character devices that container root may make, as (major, minor): what every container may use
/// anyway, plus /dev/fuse and /dev/net/tun, which act in the opener's own namespaces.
///
/// 5:1 is the console of the *host* for whoever opens it. The device rules of the container's cgroup,
/// which the runtime writes, let nobody open it; the node alone is needed in every root directory that
/// is made for another system.
const DEVICES: [(u32, u32); 9] = [
    (1, 3),    // null
    (1, 5),    // zero
    (1, 7),    // full
    (1, 8),    // random
    (1, 9),    // urandom
    (5, 0),    // tty: the opener's own terminal
    (5, 1),    // console
    (10, 229), // fuse
    (10, 200), // net/tun
];

const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;

/// The (major, minor) of a device that may be made, from the arguments of mknod(2).
pub fn device(mode: u32, device: u32) -> Option<(u32, u32)> {
    // linux/kdev_t.h, new_decode_dev().
    let number = ((device & 0x000f_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0x000f_ff00));
    (mode & S_IFMT == S_IFCHR && DEVICES.contains(&number)).then_some(number)
}

/// A user namespace on the way up from the owner of some other namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserNamespace {
    /// Which one.
    pub id: NamespaceId,
    /// Who made it, as a host id.
    pub owner: u32,
}

/// The user namespace that owns something, its parent and so on, up to the container's own, which
/// is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage(Vec<UserNamespace>);

impl Lineage {
    /// Takes namespaces from the inside out; `None` if the container's is not the last: then
    /// whatever they own does not belong to the container.
    pub fn new(namespaces: Vec<UserNamespace>, container: NamespaceId) -> Option<Self> {
        (namespaces.last()?.id == container).then_some(Self(namespaces))
    }
}

/// The credentials that rights follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user namespace in which the capabilities count.
    pub userns: NamespaceId,
    /// Effective user id, as a host id.
    pub euid: u32,
    /// Effective capabilities.
    pub effective: u64,
}

/// The kernel's `ns_capable()` (security/commoncap.c): whether a task has a capability over what
/// the first namespace of `over` owns.
pub fn is_capable(who: Credentials, over: &Lineage, capability: u64) -> bool {
    for (level, namespace) in over.0.iter().enumerate() {
        if namespace.id == who.userns {
            return who.effective & capability != 0;
        }
        // Who made a namespace has every capability in it and below, if still one level above.
        let above = over.0.get(level + 1);
        if above.is_some_and(|above| above.id == who.userns) && namespace.owner == who.euid {
            return true;
        }
    }
    false
}

/// Whose namespaces a request acts in. An absent lineage: the namespace is not the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who asks.
    pub credentials: Credentials,
    /// Owner of the caller's mount namespace.
    pub mount: Option<Lineage>,
    /// Owner of the namespace that a new file system shows: pid for proc, net for sysfs.
    pub shown: Option<Lineage>,
    /// The container's user namespace.
    pub container: NamespaceId,
}

/// Whether the kernel would let the caller change its mounts, and they are the container's.
pub fn may_mount(facts: &Facts) -> bool {
    let may = |over| is_capable(facts.credentials, over, capability::SYS_ADMIN);
    facts.mount.as_ref().is_some_and(may)
}

/// Whether the kernel would let the caller make this mount, were it not "too revealing".
pub fn may_mount_new(kind: NewMount, facts: &Facts) -> bool {
    let may = |over| is_capable(facts.credentials, over, capability::SYS_ADMIN);
    // A network namespace that is not the container's own: the engine put the container into it
    // (`--network container:NAME`, a pod's), as nobody inside has the right to enter one. The
    // sysfs that the container started with shows it already. In the kernel's eyes this is for
    // its owner only, which would leave inner engines without any /sys.
    let given = || facts.shown.is_none() && facts.credentials.userns == facts.container;
    may_mount(facts)
        && match kind {
            NewMount::Proc => facts.shown.as_ref().is_some_and(may),
            NewMount::Sysfs => facts.shown.as_ref().is_some_and(may) || given(),
            NewMount::Empty => true,
        }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
