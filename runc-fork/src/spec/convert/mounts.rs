//! `mounts`: the file systems that make a system, parents first; then what an init system asks
//! for; then the user's own in their order.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use super::Context;

/// A file system that every system container has.
struct Base {
    destination: &'static str,
    kind: &'static str,
    source: &'static str,
    options: &'static [&'static str],
    /// Options of the engine that are not taken over.
    dropped: &'static [&'static str],
    /// The container must have its own: a mount of something else there, which could only be the
    /// host's, is replaced.
    own: bool,
}

const BASE: &[Base] = &[
    Base {
        destination: "/proc",
        kind: "proc",
        source: "proc",
        options: &["nosuid", "noexec", "nodev"],
        dropped: &["ro"],
        own: true,
    },
    Base {
        destination: "/dev",
        kind: "tmpfs",
        source: "tmpfs",
        options: &["nosuid", "strictatime", "mode=755", "size=65536k"],
        dropped: &["nodev"],
        own: true,
    },
    Base {
        destination: "/dev/pts",
        kind: "devpts",
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        dropped: &["nodev"],
        own: true,
    },
    Base {
        destination: "/dev/shm",
        kind: "tmpfs",
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
        dropped: &[],
        own: false,
    },
    Base {
        destination: "/dev/mqueue",
        kind: "mqueue",
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
        dropped: &[],
        own: false,
    },
    Base {
        destination: "/sys",
        kind: "sysfs",
        source: "sysfs",
        options: &["nosuid", "noexec", "nodev"],
        // The kernel lets container root write what belongs to its network namespace.
        dropped: &["ro"],
        own: true,
    },
    Base {
        destination: "/sys/fs/cgroup",
        kind: "cgroup2",
        source: "cgroup2",
        options: &["nosuid", "noexec", "nodev"],
        dropped: &["ro"],
        own: true,
    },
];

/// systemd's container interface: empty at every start, before what the user mounts in them.
const TMPFS: &[(&str, &[&str])] = &[
    ("/run", &["nosuid", "nodev", "strictatime", "mode=755"]),
    ("/run/lock", &["nosuid", "nodev", "noexec", "mode=1777", "size=5m"]),
    ("/tmp", &["nosuid", "nodev", "strictatime", "mode=1777"]),
];

/// Rewrites the mounts; returns the destinations of the user's.
pub(super) fn convert(
    spec: &mut Spec,
    context: &Context<'_>,
    warnings: &mut Vec<String>,
) -> Vec<PathBuf> {
    let mut users = spec.mounts().clone().unwrap_or_default();
    let mut mounts = Vec::new();
    for base in BASE {
        if let Some(mount) = base.take(&mut users, context, warnings) {
            mounts.push(mount);
        }
    }
    // Single v1 hierarchies, as images for systemd on old hosts ask for.
    users.retain(|mount| {
        let inside = mount.destination().starts_with("/sys/fs/cgroup");
        if inside && mount.destination() != Path::new("/sys/fs/cgroup") {
            warnings.push(not_mounted(mount, "the container has a cgroup v2 hierarchy of its own"));
        }
        !inside
    });
    if context.hints.init_system.is_some_and(|init| init.wants_tmpfs()) {
        let of_user = |path: &str| users.iter().any(|m| m.destination() == Path::new(path));
        for (destination, options) in TMPFS {
            // Below a mount of the user everything is the user's.
            let parent = Path::new(destination).parent().and_then(Path::to_str);
            if !of_user(destination) && !parent.is_some_and(of_user) {
                mounts.push(new_mount(destination, "tmpfs", "tmpfs", options));
            }
        }
    }
    if context.hints.init_system.is_some() {
        let of_user = |path: &Path| {
            let touches =
                |d: &Path| d.starts_with(path) || (d != Path::new("/") && path.starts_with(d));
            users.iter().any(|mount| touches(mount.destination()))
        };
        for path in context.hints.kernel_files.iter().filter(|path| !of_user(path)) {
            let path = path.to_string_lossy();
            mounts.push(new_mount(&path, "bind", &path, &["rbind", "ro", "nosuid", "nodev"]));
        }
    }
    let destinations = users.iter().map(|mount| mount.destination().clone()).collect();
    mounts.extend(users);
    spec.set_mounts(Some(mounts));
    destinations
}

impl Base {
    /// This file system's mount, made of the engine's, which is taken out of `users`. `None` if
    /// the user has something of their own there.
    fn take(
        &self,
        users: &mut Vec<Mount>,
        context: &Context<'_>,
        warnings: &mut Vec<String>,
    ) -> Option<Mount> {
        let is_here = |mount: &Mount| mount.destination() == Path::new(self.destination);
        let mut mount = new_mount(self.destination, self.kind, self.source, self.options);
        let mut there = users.iter().filter(|mount| is_here(mount));
        if let Some(other) = there.clone().find(|mount| !self.is_ours(mount)) {
            if !self.own {
                users.retain(|mount| !(is_here(mount) && self.is_ours(mount)));
                return None;
            }
            warnings.push(not_mounted(other, "a system container has its own"));
        }
        if let Some(engines) = there.find(|mount| self.is_ours(mount)) {
            let options = engines.options().clone().unwrap_or_default();
            let keep = |option: &String| !self.dropped.contains(&option.as_str());
            mount.set_options(Some(options.into_iter().filter(keep).collect()));
        }
        if let Some(options) = mount.options_mut() {
            options.retain(|option| has_group(option, context.gid_count));
        }
        users.retain(|mount| !is_here(mount));
        Some(mount)
    }

    fn is_ours(&self, mount: &Mount) -> bool {
        let bind = mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind");
        let kind = mount.typ().as_deref().unwrap_or_default();
        !bind && (kind == self.kind || (self.kind == "cgroup2" && kind == "cgroup"))
    }
}

/// Whether an option names no group, or one that the container has (a devpts for a group that
/// doesn't exist is refused).
fn has_group(option: &str, gid_count: u32) -> bool {
    match option.strip_prefix("gid=").map(str::parse::<u32>) {
        Some(Ok(gid)) => gid < gid_count,
        _ => true,
    }
}

fn new_mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}

fn not_mounted(mount: &Mount, reason: &str) -> String {
    let source = mount.source().as_deref().unwrap_or(Path::new("none"));
    format!(
        "mounts: {} is not mounted on {}: {reason}",
        source.display(),
        mount.destination().display()
    )
}
