//! The calls that a system container gets on top of what the engine's default profile allows.
//!
//! All of them act inside the container's user namespace or are checked by the kernel against it.
//! What the kernel reserves for the host's user namespace (modules, clocks, I/O ports, kexec,
//! swap, process accounting, vhangup) is not here: allowing it would change one error for another.
//! Neither are calls that no system software needs and that are a large piece of kernel to attack
//! or a look at the host (`perf_event_open`, `open_by_handle_at`, `userfaultfd`, `io_uring_*`,
//! `syslog`): for these the engine's decision stands, either way.

/// How the engines' default profiles come to lack a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They allow it only to containers that were given a capability, which the profile shows:
    /// see [`Capability`].
    Needs(&'static Capability),
    /// They have it for nobody.
    Never,
    /// They may be older than the call, which has no more power than the older call named here.
    Like(&'static str),
}

/// A capability that the engines' default profiles are computed from.
#[derive(Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Calls that every known default profile allows if and only if the capability was given: one
    /// of them allowed tells that it was.
    pub witnesses: &'static [&'static str],
    /// Whether engines give it to every container.
    pub is_usual: bool,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// Name of the call.
    pub name: &'static str,
    /// Why it may be missing.
    pub gate: Gate,
    /// Why a system container needs it, or what bounds it.
    pub reason: &'static str,
}

const SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    witnesses: &["fanotify_init", "quotactl", "sethostname", "setdomainname", "lookup_dcookie"],
    is_usual: false,
};
const SYS_PTRACE: Capability =
    Capability { name: "CAP_SYS_PTRACE", witnesses: &["kcmp", "process_madvise"], is_usual: false };
const SYS_NICE: Capability =
    Capability { name: "CAP_SYS_NICE", witnesses: &["mbind", "set_mempolicy"], is_usual: false };
const SYS_BOOT: Capability =
    Capability { name: "CAP_SYS_BOOT", witnesses: &["reboot"], is_usual: false };
const SYS_CHROOT: Capability =
    Capability { name: "CAP_SYS_CHROOT", witnesses: &["chroot"], is_usual: true };

/// The capabilities for want of which a template (Podman's, CRI-O's) denies calls by a rule.
pub(crate) const RULED: &[&Capability] = &[&SYS_ADMIN, &SYS_PTRACE, &SYS_NICE, &SYS_CHROOT];

const fn needs(name: &'static str, capability: &'static Capability, reason: &'static str) -> Grant {
    Grant { name, gate: Gate::Needs(capability), reason }
}

const fn never(name: &'static str, reason: &'static str) -> Grant {
    Grant { name, gate: Gate::Never, reason }
}

const fn like(name: &'static str, older: &'static str, reason: &'static str) -> Grant {
    Grant { name, gate: Gate::Like(older), reason }
}

const MOUNTS: &str = "systemd, inner engines and unshare(1) build mount trees; the kernel locks \
                      what the container started with";
const NEW_MOUNT_API: &str = "the same by the newer API, which util-linux and systemd prefer";
const NAMESPACES: &str = "inner containers and systemd's sandboxing make and join namespaces";
const PTRACE_CHECKED: &str = "the kernel asks for ptrace access to the target, which ends at the \
                              container's user namespace";
const OWN_MEMORY: &str = "databases place their memory on NUMA nodes; bounded by the cpuset";
const KEYS: &str = "inner runtimes make session keyrings; keys and quotas are per user namespace";

/// The table. Rows that follow another call come last.
pub const GRANTS: &[Grant] = &[
    needs("mount", &SYS_ADMIN, MOUNTS),
    needs("umount", &SYS_ADMIN, MOUNTS),
    needs("umount2", &SYS_ADMIN, MOUNTS),
    never("pivot_root", MOUNTS),
    needs("fsopen", &SYS_ADMIN, NEW_MOUNT_API),
    needs("fsconfig", &SYS_ADMIN, NEW_MOUNT_API),
    needs("fsmount", &SYS_ADMIN, NEW_MOUNT_API),
    needs("fspick", &SYS_ADMIN, NEW_MOUNT_API),
    needs("move_mount", &SYS_ADMIN, NEW_MOUNT_API),
    needs("open_tree", &SYS_ADMIN, NEW_MOUNT_API),
    needs("mount_setattr", &SYS_ADMIN, NEW_MOUNT_API),
    needs("name_to_handle_at", &SYS_ADMIN, "systemd finds mount points with it; opens nothing"),
    needs("clone", &SYS_ADMIN, NAMESPACES),
    needs("clone3", &SYS_ADMIN, NAMESPACES),
    needs("unshare", &SYS_ADMIN, NAMESPACES),
    needs("setns", &SYS_ADMIN, NAMESPACES),
    needs("chroot", &SYS_CHROOT, "sshd, package builds and dockerd confine themselves with it"),
    needs("sethostname", &SYS_ADMIN, "systemd sets the name of the container's UTS namespace"),
    needs("setdomainname", &SYS_ADMIN, "as sethostname"),
    needs(
        "bpf",
        &SYS_ADMIN,
        "device rules of inner cgroups; the kernel wants a capability of \
                              the host or a token that was delegated",
    ),
    needs("fanotify_init", &SYS_ADMIN, "the kernel offers it to everyone, with limits, since 5.13"),
    needs(
        "quotactl",
        &SYS_ADMIN,
        "inner storage drivers ask for project quotas; setting any is \
                                   refused by the kernel",
    ),
    needs("quotactl_fd", &SYS_ADMIN, "as quotactl"),
    needs("kcmp", &SYS_PTRACE, PTRACE_CHECKED),
    needs("pidfd_getfd", &SYS_PTRACE, PTRACE_CHECKED),
    needs("process_madvise", &SYS_PTRACE, PTRACE_CHECKED),
    needs("process_vm_readv", &SYS_PTRACE, PTRACE_CHECKED),
    needs("process_vm_writev", &SYS_PTRACE, PTRACE_CHECKED),
    needs("ptrace", &SYS_PTRACE, PTRACE_CHECKED),
    needs("get_mempolicy", &SYS_NICE, OWN_MEMORY),
    needs("mbind", &SYS_NICE, OWN_MEMORY),
    needs("set_mempolicy", &SYS_NICE, OWN_MEMORY),
    needs("set_mempolicy_home_node", &SYS_NICE, OWN_MEMORY),
    needs(
        "reboot",
        &SYS_BOOT,
        "in a pid namespace it ends that namespace's init, which is what \
                                `poweroff` inside means",
    ),
    never("keyctl", KEYS),
    never("add_key", KEYS),
    never("request_key", KEYS),
    like("mount_setattr", "mount", NEW_MOUNT_API),
    like("open_tree_attr", "mount_setattr", NEW_MOUNT_API),
    like("quotactl_fd", "quotactl", "the same on a descriptor"),
    like("statmount", "statx", "reads what /proc/self/mountinfo shows"),
    like("listmount", "statx", "reads what /proc/self/mountinfo shows"),
    like("close_range", "close", "programs that meet EPERM here leak descriptors or stop"),
    like("openat2", "openat", "inner runtimes resolve paths safely with it"),
    like("faccessat2", "faccessat", "C libraries fall back on ENOSYS only, not on EPERM"),
    like("fchmodat2", "fchmodat", "C libraries fall back on ENOSYS only, not on EPERM"),
];
