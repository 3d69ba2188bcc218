//! `linux.maskedPaths` and `linux.readonlyPaths`.
//!
//! Engines hide and protect parts of /proc and /sys from a root that is the host's. The few of
//! their entries that stand in the way of an inner system go; all others stay, and what is not in
//! an engine's default list was put there by the user and always stays.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxDeviceType, Spec};

/// What happens to an entry of the engines' default lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

use Fate::{Goes, Stays};

/// The engines' default masks: Docker's, Podman's, containerd's and CRI-O's lists together.
const MASKED: &[(&str, Fate, &str)] = &[
    ("/proc/acpi", Stays, "power management of the host"),
    ("/proc/asound", Stays, "sound devices of the host"),
    ("/proc/interrupts", Stays, "timing of the host's devices, a side channel"),
    ("/proc/kcore", Stays, "memory of the host; refused by the kernel as well"),
    ("/proc/keys", Stays, "nothing inside needs it; keyctl(2) tells the container's own"),
    ("/proc/latency_stats", Stays, "of the whole host"),
    ("/proc/sched_debug", Stays, "tasks of the whole host"),
    ("/proc/scsi", Stays, "disks of the host"),
    ("/proc/timer_list", Stays, "timers of the whole host"),
    ("/proc/timer_stats", Stays, "timers of the whole host"),
    ("/sys/devices/virtual/powercap", Stays, "power use of the host, a side channel"),
    ("/sys/firmware", Stays, "firmware of the host"),
];

/// The engines' default read-only paths.
const READ_ONLY: &[(&str, Fate, &str)] = &[
    ("/proc/asound", Stays, "sound devices of the host"),
    ("/proc/bus", Stays, "devices of the host"),
    ("/proc/fs", Stays, "file systems of the host"),
    ("/proc/irq", Stays, "interrupt routing of the host"),
    (
        "/proc/sys",
        Goes,
        "inner engines and systemd-sysctl write there; settings that are the host's are virtual \
         files or refused by the kernel, as root inside is not root of the host",
    ),
    ("/proc/sysrq-trigger", Stays, "acts on the whole host"),
];

/// Lists of the host's disks with what everybody reads and writes there: iostat(1) would show it, and
/// divide it by the container's uptime. /proc/diskstats tells the container's own part.
const DISKS: &[&str] = &["/sys/block", "/sys/class/block"];
/// Engines mask it in every container that is to see less of the host than there is.
const SIGN_OF_MASKING: &str = "/sys/firmware";

/// Adds masks over the host's disks, where the engine masks what is the host's and the container was
/// given neither a disk nor something that is mounted there.
pub(super) fn hide_disks(spec: &mut Spec) {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let mounted =
        mounts.iter().any(|m| DISKS.iter().any(|disks| m.destination().starts_with(disks)));
    let Some(linux) = spec.linux_mut() else { return };
    let devices = linux.devices().as_deref().unwrap_or_default();
    let given = devices.iter().any(|device| device.typ() == LinuxDeviceType::B);
    let mut masked = linux.masked_paths().clone().unwrap_or_default();
    if mounted || given || !masked.iter().any(|path| path == SIGN_OF_MASKING) {
        return;
    }
    for disks in DISKS {
        if !masked.iter().any(|path| path == disks) {
            masked.push((*disks).to_owned());
        }
    }
    linux.set_masked_paths(Some(masked));
}

/// Hides which device nodes the host's modules would like to have. systemd (`kmod-static-nodes.service`)
/// makes them at boot, and so takes /dev/fuse and /dev/net/tun, which are there, from everybody but root;
/// only udev, which runs in no container, would give them back. `kernel_files` are the host's.
pub(super) fn hide_static_nodes(spec: &mut Spec, kernel_files: &[PathBuf]) {
    let modules = kernel_files.iter().find(|path| path.starts_with("/lib/modules"));
    let (Some(linux), Some(modules)) = (spec.linux_mut(), modules) else { return };
    let mut masked = linux.masked_paths().clone().unwrap_or_default();
    masked.push(modules.join("modules.devname").to_string_lossy().into_owned());
    linux.set_masked_paths(Some(masked));
}

/// Takes out what must go.
pub(super) fn open_up(linux: &mut Linux) {
    let retain = |list: Option<Vec<String>>, table: &[(&str, Fate, &str)]| {
        list.map(|mut list| {
            list.retain(|path| !table.iter().any(|(name, fate, _)| path == name && *fate == Goes));
            list
        })
    };
    let masked = retain(linux.masked_paths().clone(), MASKED);
    let read_only = retain(linux.readonly_paths().clone(), READ_ONLY);
    linux.set_masked_paths(masked).set_readonly_paths(read_only);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::fixtures::docker;

    #[test]
    fn every_entry_of_dockers_lists_has_a_row() {
        let spec = docker(|_| {});
        let linux = spec.linux().as_ref().unwrap();
        for (list, table) in [(linux.masked_paths(), MASKED), (linux.readonly_paths(), READ_ONLY)] {
            for path in list.iter().flatten() {
                assert!(table.iter().any(|(name, _, _)| name == path), "{path}");
            }
        }
        assert!(MASKED.iter().chain(READ_ONLY).all(|(_, _, reason)| !reason.is_empty()));
    }

    #[test]
    fn device_nodes_that_modules_want_are_hidden() {
        let mut spec = docker(|spec| spec["linux"]["maskedPaths"] = serde_json::json!([]));
        let files = ["/usr/src/linux-headers-6.1", "/lib/modules/6.1"].map(PathBuf::from);
        hide_static_nodes(&mut spec, &files[..1]);
        hide_static_nodes(&mut spec, &files);
        let masked = spec.linux().as_ref().unwrap().masked_paths().clone();
        assert_eq!(masked.unwrap(), ["/lib/modules/6.1/modules.devname"]);
    }

    #[test]
    fn disks_are_hidden_unless_one_is_given() {
        let after = |change: fn(&mut serde_json::Value)| {
            let mut spec = docker(change);
            hide_disks(&mut spec);
            let linux = spec.linux().as_ref().unwrap();
            let masked = linux.masked_paths().clone().unwrap_or_default();
            masked.into_iter().filter(|path| path.contains("block")).collect::<Vec<_>>()
        };
        assert_eq!(after(|_| {}), DISKS);
        let device = |spec: &mut serde_json::Value| {
            spec["linux"]["devices"] = serde_json::json!([
                { "type": "b", "path": "/dev/sdx", "major": 8, "minor": 16 }
            ]);
        };
        assert!(after(device).is_empty());
        let mount = |spec: &mut serde_json::Value| {
            spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
                "destination": "/sys/class/block/x", "type": "bind", "source": "/x"
            }));
        };
        assert!(after(mount).is_empty(), "what a user mounts is not hidden");
        // `--security-opt systempaths=unconfined`
        assert!(after(|spec| spec["linux"]["maskedPaths"] = serde_json::json!([])).is_empty());
        let own = |spec: &mut serde_json::Value| {
            spec["linux"]["maskedPaths"] = serde_json::json!(["/sys/block", "/sys/firmware"]);
        };
        assert_eq!(after(own), DISKS);
    }
}
