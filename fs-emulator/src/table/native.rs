//! Files that tell of the host and are not emulated: what they are inside, and why.

/// Paths as the page prints them, what is inside, the reason.
pub const NATIVE: &[(&str, &str, &str)] = &[(
    "`/proc/kallsyms`, `/proc/modules`",
    "the kernel's own",
    "addresses read as 0 without CAP_SYSLOG on the host; which modules are loaded is what kubeadm and iptables look for",
)];
