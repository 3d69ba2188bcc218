//! `/proc/cmdline`.

use crate::view::View;

/// Beginnings of the parameters that software inside looks for: they say what the kernel offers.
const SHOWN: [&str; 12] = [
    "apparmor=",
    "cgroup",
    "hugepage",
    "lockdown=",
    "lsm=",
    "mitigations=",
    "nosmt",
    "psi=",
    "selinux=",
    "swapaccount=",
    "systemd.",
    "transparent_hugepage=",
];

/// The host's parameters without those that say how it was started, from where, and what for.
pub fn cmdline(view: &View) -> String {
    shown(&view.host.text("proc/cmdline"))
}

fn shown(host: &str) -> String {
    // What follows a double dash is meant for the host's init.
    let kernels = host.split_whitespace().take_while(|word| *word != "--");
    let words = kernels.filter(|word| SHOWN.iter().any(|start| word.starts_with(start)));
    format!("{}\n", words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_the_kernel_offers_is_shown() {
        let host = "BOOT_IMAGE=/vm root=UUID=1 ro psi=1 token=secret swapaccount=1 -- psi=2\n";
        assert_eq!(super::shown(host), "psi=1 swapaccount=1\n");
        assert_eq!(super::shown(""), "\n");
    }
}
