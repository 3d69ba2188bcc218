//! Files that tell of the host and are not emulated: what they are inside, and why.

/// Paths as the page prints them, what is inside, the reason.
pub const NATIVE: &[(&str, &str, &str)] = &[
    (
        "`/sys/devices/system/cpu/{possible,kernel_max}`, `getconf _NPROCESSORS_CONF`",
        "the kernel's own: the CPUs that could be there",
        "allocators and other libraries size their per-CPU tables by it, and index them by getcpu(2), which tells the real number: a smaller one would make them write beyond the table",
    ),
    (
        "`/sys/devices/system/cpu/cpuN/`",
        "the kernel's own, of all CPUs",
        "only single files are mounted over, so directories can't be hidden, as little as those of switched-off CPUs on a machine; `online` tells which count",
    ),
    (
        "`sched_getaffinity(2)`, `nproc`, `Cpus_allowed_list`, Go before 1.25",
        "the kernel's own: the cpuset (`--cpuset-cpus`), whose numbers the files above show, too; not the quota (`--cpus`)",
        "an affinity says *where* tasks may run, a quota *how long*: a shortened one would send all containers' tasks that pin themselves by it to the same first CPUs, while those that do not would run on CPUs that it does not name",
    ),
    (
        "`/sys/devices/system/node/nodeN/` from node1 on, and other files of node0",
        "the kernel's own",
        "how a limit spreads over several nodes nobody knows; placing tasks on real nodes needs the real ones",
    ),
    (
        "`/proc/interrupts`, `/proc/softirqs`, `/proc/buddyinfo`, `/proc/zoneinfo`, `/proc/schedstat`",
        "the kernel's own",
        "counters of the hardware, which no cgroup has a part of; monitoring that reads them wants the machine's",
    ),
    (
        "`/proc/slabinfo`, `/proc/pagetypeinfo`, `/proc/vmallocinfo`, `/proc/kpage*`",
        "can't be read",
        "the kernel lets only the host's root read them",
    ),
    (
        "`/proc/keys`, `/proc/timer_list`, `/proc/kcore`, `/proc/acpi`, `/proc/scsi`, `/sys/firmware`",
        "masked",
        "Docker's own list of masked paths, which stays",
    ),
    (
        "`/sys/block`, `/sys/class/block`",
        "masked, unless a disk was given to the container",
        "iostat(1) would show what everybody does with the host's disks; `/proc/diskstats` tells the \
         container's part",
    ),
    (
        "`/proc/key-users`",
        "the kernel's own",
        "shows only users that are mapped into the reader's user namespace",
    ),
    (
        "`/proc/kallsyms`, `/proc/iomem`, `/proc/ioports`, `/proc/modules`",
        "the kernel's own",
        "addresses read as 0 for all but the host's root; which modules are loaded is what kubeadm and iptables look for",
    ),
    (
        "`/proc/config.gz`, `/proc/version`, `/proc/filesystems`, `/proc/devices`, `/proc/crypto`",
        "the kernel's own",
        "what the kernel offers is the same for everybody, and checks of inner engines need it",
    ),
    (
        "`/proc/locks`",
        "the kernel's own",
        "shows processes of the reader's pid namespace; of others that a lock exists, without a name",
    ),
    (
        "`/proc/sysrq-trigger`, `/proc/irq`, `/proc/bus`, `/proc/fs`",
        "read-only",
        "Docker's own list of read-only paths, which stays",
    ),
    (
        "`/proc/sys/net/`, `/proc/sys/user/`, `/proc/sys/fs/mqueue/`, `/proc/sys/kernel/{shm*,msg*,sem}`",
        "the kernel's own, writable",
        "they belong to namespaces of the container",
    ),
    (
        "`/proc/sys/kernel/pid_max`",
        "the kernel's own from Linux 6.14 on",
        "belongs to the pid namespace from then on; before, it is a setting like those above",
    ),
    (
        "`/proc/sys/kernel/random/{uuid,entropy_avail,poolsize}`",
        "the kernel's own",
        "a new UUID for each reader, and numbers that are constants today",
    ),
    (
        "`/proc/sys/net/netfilter/{nf_conntrack_buckets,nf_conntrack_expect_max}`",
        "the kernel's own, read-only",
        "only the host's network namespace may change them, and nothing known inside wants to",
    ),
    (
        "`/proc/sys/net/netfilter/nf_hooks_lwtunnel`",
        "the kernel's own; writing is refused (`EPERM`)",
        "it switches something on for the machine, although every network namespace has the file: an eBPF program of the container's cgroup guards it",
    ),
    (
        "`/proc/sys/net/core/{default_qdisc,bpf_jit_*,netdev_*}`, `/proc/sys/net/ipv4/neigh/default/gc_thresh*`",
        "not there",
        "the kernel shows them in the host's network namespace only, and a file can't be mounted where there is none",
    ),
    (
        "`/proc/sys/vm/nr_hugepages`, `/proc/sys/vm/nr_overcommit_hugepages`",
        "the kernel's own, read-only",
        "an accepted value would promise pages that the container does not get",
    ),
    (
        "all other files of `/proc/sys`",
        "the kernel's own, read-only",
        "nothing known inside wants to write them; each file here costs every container a mount",
    ),
    (
        "`sysinfo(2)`",
        "the same numbers as in the files above",
        "a system call, not a file: the seccomp program hands it to `sysbox-mgr`, which asks `sysbox-fs`. Inside of another system container, or with an engine's profile that refuses the call, it is the kernel's own",
    ),
];
