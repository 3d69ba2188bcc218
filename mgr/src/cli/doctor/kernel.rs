//! What the kernel can do.

use std::fs;

use sysbox_cgroups::Layout;
use sysbox_kernel::{fuse, landlock, ns};
use sysbox_mgr::broker::Features;

use super::Check;

/// A feature that shows in a text file, and what to do without it: file, words that must be there.
const FILES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "overlay file system",
        "/proc/filesystems",
        "overlay",
        "root file systems and inner engines",
        "run `modprobe overlay`",
    ),
    (
        "seccomp notification",
        "/proc/sys/kernel/seccomp/actions_avail",
        "user_notif",
        "mounts made inside (Linux 5.0)",
        "take a kernel with CONFIG_SECCOMP_FILTER; containers start, but inner engines do not work",
    ),
    (
        "time namespaces",
        "/proc/self/timens_offsets",
        "monotonic",
        "uptime and start times of a container's own (Linux 5.6)",
        "take a kernel with CONFIG_TIME_NS; containers show the host's uptime",
    ),
    (
        "pressure stall information",
        "/proc/pressure/memory",
        "avg10",
        "/proc/pressure and load averages of a container",
        "boot with psi=1",
    ),
];

/// The checks.
pub fn checks() -> Vec<Check> {
    let mut checks =
        vec![release(), user_namespaces(), fuse_device(), cgroups(), confinement(), selinux()];
    checks.extend(FILES.iter().map(|(what, file, word, gives, remedy)| {
        let found = match fs::read_to_string(file) {
            Ok(text) if text.contains(word) => Ok("the kernel has it".to_owned()),
            _ => Err("the kernel does not have it, or not loaded"),
        };
        Check::useful(*what, found, gives, remedy)
    }));
    checks.extend(by_version());
    checks.extend(mounts());
    checks
}

/// Features that are known by the kernel's version: since when, what for.
const SINCE: &[(&str, (u32, u32), &str)] = &[
    ("ID-mapped tmpfs", (6, 3), "/dev/shm and tmpfs volumes shared with the host's files in them"),
    (
        "FUSE resend",
        (6, 9),
        "reads of virtualised files outlive sysbox-fs without a journal of our own",
    ),
];

/// Name and version of the kernel.
fn version() -> (String, (u32, u32)) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (release.trim().to_owned(), version)
}

fn release() -> Check {
    let (release, version) = version();
    let found = if version >= (5, 19) { Ok(release) } else { Err(release) };
    Check::needed(
        "kernel",
        found,
        "ID-mapped overlays, and what follows",
        "take Linux 6.1 or later",
    )
}

fn by_version() -> impl Iterator<Item = Check> {
    let (release, version) = version();
    SINCE.iter().map(move |(what, since, gives)| {
        let (major, minor) = since;
        let found = match version >= *since {
            true => Ok("the kernel has it".to_owned()),
            false => Err(format!("Linux {major}.{minor} has it, this is {release}")),
        };
        Check::useful(*what, found, gives, "none needed: it is done in another way")
    })
}

fn user_namespaces() -> Check {
    let map = [ns::IdMap { inside: 0, outside: 0, count: 1 }];
    let found = ns::user_namespace(&map, &map).map(|_| "can be made".to_owned());
    let remedy = "raise the sysctl user.max_user_namespaces";
    Check::needed("user namespaces", found, "root inside is nobody outside", remedy)
}

fn fuse_device() -> Check {
    let found = fuse::open_device().map(|_| "/dev/fuse can be opened".to_owned());
    Check::needed("FUSE", found, "virtualised files of /proc and /sys", "run `modprobe fuse`")
}

fn cgroups() -> Check {
    let found = Layout::detect().map(|layout| match layout.is_pure_v2() {
        true => "version 2".to_owned(),
        false => "hybrid: limits are set in the hierarchies of version 1".to_owned(),
    });
    let remedy = "mount the cgroup2 file system at /sys/fs/cgroup";
    Check::needed("cgroups", found, "limits, and a cgroup tree inside", remedy)
}

fn confinement() -> Check {
    let found = landlock::version().map(|version| format!("Landlock, version {version}"));
    Check::useful(
        "confinement",
        found,
        "sysbox-fs can open few files only",
        "boot with lsm=...,landlock",
    )
}

fn selinux() -> Check {
    let found = match fs::read_to_string("/sys/fs/selinux/enforce") {
        Ok(text) if text.trim() == "1" => Err(
            "it is enforcing, and policies let the type `container_t` neither mount nor make cgroups",
        ),
        Ok(_) => Ok("it is permissive".to_owned()),
        Err(_) => Ok("it is off".to_owned()),
    };
    Check::useful(
        "SELinux",
        found,
        "labels of the engine's on processes and files, systemd and engines inside",
        "run system containers with a label of another type, or with `--security-opt label=disable`",
    )
}

/// Ways in which the broker makes mounts.
fn mounts() -> Vec<Check> {
    let features = match Features::probe() {
        Ok(features) => features,
        Err(e) => {
            let (gives, remedy) = ("mounts made inside", "run as root on the host");
            return vec![Check::needed("mounts inside", Err::<String, _>(e), gives, remedy)];
        }
    };
    let rows = [
        (
            "procfs by option",
            features.pidns_option,
            "an inner proc without a helper process (Linux 6.18)",
        ),
        (
            "mounts on detached trees",
            features.detached_trees,
            "an inner proc that has its virtualised files from the first moment (Linux 6.15)",
        ),
        (
            "single mounts",
            features.single_mounts,
            "an umount inside that does not read the whole mount table (Linux 6.8)",
        ),
    ];
    let check = |(what, is_there, gives): (&str, bool, &'static str)| {
        let found = if is_there { Ok("the kernel has it".to_owned()) } else { Err("older kernel") };
        Check::useful(what, found, gives, "none needed: it is done in another way")
    };
    rows.map(check).into()
}
