//! Files that tell of the container's resources and of itself.

use super::{Row, Source};
use crate::render;
use crate::view::View;

/// Shorthand for a file that everybody may read and nobody may write.
const fn row(
    id: u16,
    path: &'static str,
    meaning: &'static str,
    reason: &'static str,
    render: fn(&View) -> String,
) -> Row {
    let source = Source::View(render);
    Row { id, path, meaning, reason, source, native_from: None }
}

/// Why files about CPUs are emulated.
const ALL_CPUS: &str = "shows all CPUs of the host whatever the container may use";

/// A pressure file, with triggers.
const fn pressure(id: u16, path: &'static str, kind: &'static str, meaning: &'static str) -> Row {
    let (source, reason) = (Source::Pressure(kind), "tells how loaded the host is by everybody");
    Row { id, path, meaning, reason, source, native_from: None }
}

/// All of them. Numbers up to 100; 11 is not used any more.
pub static RESOURCES: &[Row] = &[
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
        "the CPUs of the cpuset, cut to what the quota can keep busy, by the host's numbers",
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
        12,
        "sys/devices/system/cpu/offline",
        "the other CPUs of `possible`, as on a machine on which they are switched off",
        "tells of CPUs that the host could have",
        render::offline,
    ),
    row(
        13,
        "proc/sys/kernel/random/boot_id",
        "another one whenever the container starts",
        "is the same for all containers: journals and clusters take them for one machine",
        render::boot_id,
    ),
    row(
        14,
        "sys/devices/virtual/dmi/id/product_uuid",
        "stable for the container",
        "is the host's, for all containers the same: kubelet takes it for the machine's name",
        render::product_uuid,
    ),
    pressure(
        15,
        "proc/pressure/cpu",
        "cpu",
        "what the container's tasks lost by waiting for CPUs; triggers for poll(2) work, 16 at once in a container",
    ),
    pressure(16, "proc/pressure/memory", "memory", "what they lost by waiting for memory"),
    pressure(17, "proc/pressure/io", "io", "what they lost by waiting for disks"),
    pressure(18, "proc/pressure/irq", "irq", "what they lost to interrupts"),
    row(
        19,
        "proc/vmstat",
        "what is counted for the container's cgroup, all else 0; it agrees with /proc/meminfo",
        "counts for everybody",
        render::vmstat,
    ),
    row(
        20,
        "proc/cmdline",
        "the parameters that tell what the kernel offers",
        "tells how the host was started and from where",
        render::cmdline,
    ),
    row(
        21,
        "sys/devices/system/node/node0/meminfo",
        "as /proc/meminfo, where the host has one node",
        "shows the host's memory and the use by everybody",
        render::node_meminfo,
    ),
    row(
        22,
        "sys/devices/system/node/node0/cpulist",
        "the same CPUs as in /proc/cpuinfo, where the host has one node",
        ALL_CPUS,
        render::node_cpulist,
    ),
    row(
        23,
        "sys/devices/system/node/node0/cpumap",
        "the same CPUs as a mask",
        ALL_CPUS,
        render::node_cpumap,
    ),
    row(
        24,
        "sys/devices/system/cpu/enabled",
        "the same CPUs as online: the container has no others",
        ALL_CPUS,
        render::online,
    ),
];
