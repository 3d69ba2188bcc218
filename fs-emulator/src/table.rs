//! Every file that is emulated, with what it means and why it is not the kernel's own.
//!
//! To add a file, add a row (and a renderer in [`crate::render`] if none fits): lookup, reading,
//! the list that the manager gets, and inode numbers follow from it.

use crate::render;
use crate::view::View;

/// Largest number of a row.
pub const MAX_ID: u16 = 1023;

/// An emulated file.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Number of the file, 1 to [`MAX_ID`]; inode numbers are made of it, and a daemon that takes
    /// over from an older one must give the same: never changed, never used again.
    pub id: u16,
    /// Path in the container without the leading slash, e.g. "proc/meminfo".
    pub path: &'static str,
    /// What the file says inside.
    pub meaning: &'static str,
    /// Why the kernel's own file would not do.
    pub reason: &'static str,
    /// Permission bits.
    pub mode: u16,
    /// Makes the text for a reader.
    pub render: fn(&View) -> String,
}

/// Shorthand for a file that everybody may read and nobody may write.
const fn row(
    id: u16,
    path: &'static str,
    meaning: &'static str,
    reason: &'static str,
    render: fn(&View) -> String,
) -> Row {
    Row { id, path, meaning, reason, mode: 0o444, render }
}

/// Why files about CPUs are emulated.
const ALL_CPUS: &str = "shows all CPUs of the host whatever the container may use";

/// All emulated files.
pub static TABLE: &[Row] = &[
    row(
        1,
        "proc/meminfo",
        "the tightest memory limit, and what the container uses of it",
        "shows the host's memory and the use by everybody",
        render::meminfo,
    ),
    row(
        2,
        "proc/cpuinfo",
        "the CPUs of the cpuset, cut to what the quota can keep busy, numbered from 0",
        ALL_CPUS,
        render::cpuinfo,
    ),
    row(
        3,
        "proc/stat",
        "CPU time of the container on its CPUs, its start, its running tasks",
        "shows the use of the host's CPUs by everybody",
        render::stat,
    ),
    row(
        4,
        "proc/loadavg",
        "load averages of the container's own tasks",
        "shows the load of the host",
        render::loadavg,
    ),
    row(
        5,
        "proc/uptime",
        "time since the container was created; idle time of its CPUs",
        "the idle time is the host's, the uptime too where the kernel has no time namespaces",
        render::uptime,
    ),
    row(
        6,
        "proc/swaps",
        "one device of the size that the container may swap",
        "names the host's swap files and their use by everybody",
        render::swaps,
    ),
    row(
        7,
        "proc/diskstats",
        "what the container read and wrote, on the devices that it used",
        "shows the host's devices and the use by everybody",
        render::diskstats,
    ),
    row(
        8,
        "proc/partitions",
        "the devices that the container used",
        "names all of the host's devices",
        render::partitions,
    ),
    row(
        9,
        "sys/devices/system/cpu/online",
        "the same CPUs as in /proc/cpuinfo",
        ALL_CPUS,
        render::online,
    ),
    row(
        10,
        "sys/devices/system/cpu/present",
        "the same CPUs as online: the container has no others",
        ALL_CPUS,
        render::online,
    ),
    row(
        11,
        "sys/devices/system/cpu/possible",
        "the same CPUs as online: none can be plugged in",
        ALL_CPUS,
        render::online,
    ),
    row(
        12,
        "sys/devices/system/cpu/offline",
        "none",
        "tells of CPUs that the host could have",
        render::offline,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for (i, row) in TABLE.iter().enumerate() {
            assert!(row.path.starts_with("proc/") || row.path.starts_with("sys/"), "{}", row.path);
            assert!(row.path.split('/').all(|name| !name.is_empty()), "{}", row.path);
            assert!(!row.meaning.is_empty() && !row.reason.is_empty(), "{}", row.path);
            assert_eq!(row.mode & !0o666, 0, "{}", row.path);
            assert!((1..=MAX_ID).contains(&row.id), "{}", row.path);
            let unlike = |other: &Row| other.path != row.path && other.id != row.id;
            assert!(TABLE[..i].iter().all(unlike), "{} twice", row.path);
        }
    }
}
