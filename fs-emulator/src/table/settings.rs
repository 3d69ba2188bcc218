//! The settings of the host that are each container's own.
//!
//! Every row costs two mounts in each container and each proc that is mounted inside, so there is
//! one only for what software inside wants to write, or must be able to read for `sysctl -a` to
//! say nothing that it does not say on a machine. Files that the kernel namespaces are never here.

use std::ops::RangeInclusive;

use super::{Row, Source};
use crate::settings::{Rule, Setting};

const INT: RangeInclusive<i64> = i32::MIN as i64..=i32::MAX as i64;
const NATURAL: RangeInclusive<i64> = 0..=i32::MAX as i64;
const UINT: RangeInclusive<i64> = 0..=u32::MAX as i64;
const LONG: RangeInclusive<u64> = 0..=i64::MAX as u64;

/// Kubelet checks or sets it (`protectKernelDefaults`).
const KUBELET: &str = "kubelet sets it, or refuses to start if it differs";
/// In the sysctl.d files of distributions.
const DISTRIBUTION: &str = "distributions' sysctl.d files set it at boot";
/// Databases and search engines.
const DATABASES: &str = "databases' packages and guides set it, and some refuse to start without";
/// Hardening guides.
const HARDENING: &str = "hardening guides and scripts set it";
/// Only root may read it.
const PRIVATE: &str = "`sysctl -a` reads it, and only the host's root may read the kernel's own";
/// No other use than having an effect, which it must not have here.
const NO_EFFECT: &str = "scripts write it; what it would do to the host is not done";

const fn setting(id: u16, path: &'static str, rule: Rule, reason: &'static str) -> Row {
    with(id, path, rule, None, None, reason)
}

const fn with(
    id: u16,
    path: &'static str,
    rule: Rule,
    default: Option<&'static str>,
    instead_of: Option<&'static str>,
    reason: &'static str,
) -> Row {
    let source = Source::Setting(Setting { rule, default, instead_of });
    Row { id, path, meaning: "the container's own value", reason, source, native_from: None }
}

const fn number(range: RangeInclusive<i64>) -> Rule {
    Rule::Numbers(1, range)
}

/// All settings. Numbers from 101 on.
pub static SETTINGS: &[Row] = &[
    setting(101, "proc/sys/kernel/panic", number(INT), KUBELET),
    setting(102, "proc/sys/kernel/panic_on_oops", number(INT), KUBELET),
    setting(103, "proc/sys/kernel/printk", Rule::Numbers(4, INT), DISTRIBUTION),
    setting(104, "proc/sys/kernel/sysrq", number(INT), DISTRIBUTION),
    setting(105, "proc/sys/kernel/kptr_restrict", number(0..=2), DISTRIBUTION),
    setting(106, "proc/sys/kernel/dmesg_restrict", number(0..=1), HARDENING),
    with(
        107,
        "proc/sys/kernel/core_pattern",
        Rule::Line(127),
        Some("core\n"),
        None,
        "crash reporters set it; the host's names a program of the host",
    ),
    setting(108, "proc/sys/kernel/core_uses_pid", number(INT), DISTRIBUTION),
    setting(109, "proc/sys/kernel/core_pipe_limit", number(UINT), "systemd-coredump sets it"),
    setting(110, "proc/sys/kernel/yama/ptrace_scope", Rule::Latch(0..=3, 3), DISTRIBUTION),
    setting(111, "proc/sys/kernel/perf_event_paranoid", number(INT), HARDENING),
    setting(112, "proc/sys/kernel/unprivileged_bpf_disabled", Rule::Latch(0..=2, 1), HARDENING),
    setting(113, "proc/sys/kernel/threads-max", number(1..=0x3fff_ffff), DATABASES),
    setting(114, "proc/sys/kernel/keys/maxkeys", number(NATURAL), DATABASES),
    setting(115, "proc/sys/kernel/keys/maxbytes", number(NATURAL), DATABASES),
    setting(
        116,
        "proc/sys/kernel/keys/root_maxkeys",
        number(NATURAL),
        "dockerd and kubelet set it",
    ),
    setting(
        117,
        "proc/sys/kernel/keys/root_maxbytes",
        number(NATURAL),
        "dockerd and kubelet set it",
    ),
    setting(118, "proc/sys/kernel/randomize_va_space", number(INT), HARDENING),
    setting(119, "proc/sys/kernel/numa_balancing", number(0..=4), DATABASES),
    setting(120, "proc/sys/kernel/sched_rt_runtime_us", number(-1..=i32::MAX as i64), DATABASES),
    setting(121, "proc/sys/kernel/sched_autogroup_enabled", number(0..=1), DATABASES),
    setting(122, "proc/sys/kernel/hung_task_timeout_secs", Rule::Large(LONG), DATABASES),
    setting(125, "proc/sys/kernel/kexec_load_disabled", Rule::Latch(0..=1, 1), HARDENING),
    with(127, "proc/sys/kernel/cad_pid", number(1..=4_194_304), Some("1\n"), None, PRIVATE),
    setting(128, "proc/sys/kernel/usermodehelper/bset", Rule::Numbers(2, UINT), PRIVATE),
    setting(129, "proc/sys/kernel/usermodehelper/inheritable", Rule::Numbers(2, UINT), PRIVATE),
    setting(
        130,
        "proc/sys/kernel/printk_devkmsg",
        Rule::Word(&["on", "off", "ratelimit"]),
        HARDENING,
    ),
    Row {
        native_from: Some((6, 14)),
        ..setting(131, "proc/sys/kernel/pid_max", number(301..=4_194_304), DISTRIBUTION)
    },
    setting(151, "proc/sys/vm/overcommit_memory", number(0..=2), KUBELET),
    with(
        152,
        "proc/sys/vm/overcommit_ratio",
        number(NATURAL),
        None,
        Some("proc/sys/vm/overcommit_kbytes"),
        DATABASES,
    ),
    with(
        153,
        "proc/sys/vm/overcommit_kbytes",
        Rule::Large(0..=u64::MAX),
        None,
        Some("proc/sys/vm/overcommit_ratio"),
        DATABASES,
    ),
    setting(154, "proc/sys/vm/max_map_count", number(NATURAL), DATABASES),
    setting(155, "proc/sys/vm/swappiness", number(0..=200), DATABASES),
    with(
        156,
        "proc/sys/vm/dirty_ratio",
        number(0..=100),
        None,
        Some("proc/sys/vm/dirty_bytes"),
        DATABASES,
    ),
    with(
        157,
        "proc/sys/vm/dirty_bytes",
        Rule::Large(8192..=u64::MAX),
        None,
        Some("proc/sys/vm/dirty_ratio"),
        DATABASES,
    ),
    with(
        158,
        "proc/sys/vm/dirty_background_ratio",
        number(0..=100),
        None,
        Some("proc/sys/vm/dirty_background_bytes"),
        DATABASES,
    ),
    with(
        159,
        "proc/sys/vm/dirty_background_bytes",
        Rule::Large(1..=u64::MAX),
        None,
        Some("proc/sys/vm/dirty_background_ratio"),
        DATABASES,
    ),
    setting(160, "proc/sys/vm/dirty_expire_centisecs", number(NATURAL), DATABASES),
    setting(161, "proc/sys/vm/dirty_writeback_centisecs", number(NATURAL), DATABASES),
    setting(162, "proc/sys/vm/min_free_kbytes", number(NATURAL), DATABASES),
    setting(163, "proc/sys/vm/panic_on_oom", number(0..=2), KUBELET),
    setting(164, "proc/sys/vm/mmap_min_addr", Rule::Large(0..=u64::MAX), DISTRIBUTION),
    with(165, "proc/sys/vm/drop_caches", number(1..=4), Some("0\n"), None, NO_EFFECT),
    with(166, "proc/sys/vm/compact_memory", number(1..=1), Some("0\n"), None, NO_EFFECT),
    setting(167, "proc/sys/vm/vfs_cache_pressure", number(NATURAL), DATABASES),
    setting(169, "proc/sys/vm/zone_reclaim_mode", number(NATURAL), DATABASES),
    setting(172, "proc/sys/vm/mmap_rnd_bits", number(16..=33), PRIVATE),
    setting(173, "proc/sys/vm/mmap_rnd_compat_bits", number(7..=16), PRIVATE),
    with(174, "proc/sys/vm/stat_refresh", Rule::Ignored, Some(""), None, PRIVATE),
    setting(201, "proc/sys/fs/file-max", Rule::Large(LONG), DATABASES),
    setting(202, "proc/sys/fs/nr_open", number(64..=2_147_483_584), DATABASES),
    setting(203, "proc/sys/fs/aio-max-nr", Rule::Large(0..=u64::MAX), DATABASES),
    setting(204, "proc/sys/fs/inotify/max_user_instances", number(NATURAL), INOTIFY),
    setting(205, "proc/sys/fs/inotify/max_user_watches", number(NATURAL), INOTIFY),
    setting(206, "proc/sys/fs/inotify/max_queued_events", number(NATURAL), INOTIFY),
    setting(207, "proc/sys/fs/protected_hardlinks", number(0..=1), DISTRIBUTION),
    setting(208, "proc/sys/fs/protected_symlinks", number(0..=1), DISTRIBUTION),
    setting(209, "proc/sys/fs/protected_fifos", number(0..=2), DISTRIBUTION),
    setting(210, "proc/sys/fs/protected_regular", number(0..=2), DISTRIBUTION),
    setting(211, "proc/sys/fs/suid_dumpable", number(0..=2), HARDENING),
    setting(212, "proc/sys/fs/pipe-max-size", Rule::PipeSize, DATABASES),
    setting(213, "proc/sys/fs/epoll/max_user_watches", Rule::Large(LONG), DATABASES),
    setting(
        214,
        "proc/sys/fs/may_detach_mounts",
        number(0..=1),
        "container engines on RHEL 7 set it",
    ),
    // All that is net/ belongs to the network namespace, but for what every namespace shares: its
    // files can't be written anywhere but in the host's.
    setting(301, "proc/sys/net/core/rmem_max", number(2304..=i32::MAX as i64), SOCKETS),
    setting(302, "proc/sys/net/core/wmem_max", number(4608..=i32::MAX as i64), SOCKETS),
    setting(303, "proc/sys/net/core/rmem_default", number(2304..=i32::MAX as i64), SOCKETS),
    setting(304, "proc/sys/net/core/wmem_default", number(4608..=i32::MAX as i64), SOCKETS),
    setting(
        305,
        "proc/sys/net/netfilter/nf_conntrack_max",
        number(NATURAL),
        "kube-proxy sets it, and gives up if it can't",
    ),
    setting(
        251,
        "sys/module/nf_conntrack/parameters/hashsize",
        number(1..=u32::MAX as i64),
        "kube-proxy sets it",
    ),
    setting(252, "sys/kernel/mm/transparent_hugepage/enabled", Rule::Choice, DATABASES),
    setting(253, "sys/kernel/mm/transparent_hugepage/defrag", Rule::Choice, DATABASES),
];

/// Programs that send and receive much.
const SOCKETS: &str = "databases, QUIC and streaming servers' guides raise it; every network namespace shows the host's";

/// Watchers of many files.
const INOTIFY: &str = "editors, build servers and Kubernetes guides raise it; the container's real \
                       limits are in /proc/sys/user";
