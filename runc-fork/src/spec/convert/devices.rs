//! `linux.devices` and the rules that let them be opened.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec};

/// Minor number of the null device.
const NULL: i64 = 3;

/// A device that every system container gets: path, major, minor, mode, reason.
const DEVICES: &[(&str, i64, i64, u32, &str)] = &[
    (
        "/dev/kmsg",
        1,
        NULL,
        0o644,
        "kubelet and init systems open it; it is the null device under that name, since the \
         kernel's log is the host's",
    ),
    (
        "/dev/fuse",
        10,
        229,
        0o666,
        "file systems in user space, fuse-overlayfs; safe in user namespaces",
    ),
    (
        "/dev/net/tun",
        10,
        200,
        0o666,
        "VPNs and inner networks; makes interfaces in the own network",
    ),
];

/// The kernel's log. Nobody but the host's root may read it, so where the spec lists it and allows it
/// (kubelet in a container is told to ask for it) it is the null device, too.
const KERNEL_LOG: (i64, i64) = (1, 11);

/// Adds the devices, except where the spec has one or, by `mounts`, mounts something there.
pub(super) fn add(spec: &mut Spec, mounts: &[PathBuf]) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let mut devices = linux.devices().clone().unwrap_or_default();
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    let is_log =
        |d: &LinuxDevice| d.typ() == LinuxDeviceType::C && (d.major(), d.minor()) == KERNEL_LOG;
    let allowed = allows(&rules, KERNEL_LOG);
    for device in devices.iter_mut().filter(|device| allowed && is_log(device)) {
        device.set_minor(NULL);
        rules.push(LinuxDeviceCgroup::from(&*device));
    }
    for &(path, major, minor, mode, _) in DEVICES {
        let path = Path::new(path);
        let taken = devices.iter().any(|device| device.path() == path)
            || mounts.iter().any(|destination| destination == path);
        if taken {
            continue;
        }
        let mut device = LinuxDevice::default();
        device.set_path(path.to_owned()).set_typ(LinuxDeviceType::C);
        device.set_major(major).set_minor(minor).set_file_mode(Some(mode));
        device.set_uid(Some(0)).set_gid(Some(0));
        // After the engine's rules, some of which deny it: the last one counts.
        rules.push(LinuxDeviceCgroup::from(&device));
        devices.push(device);
    }
    resources.set_devices(Some(rules));
    linux.set_devices(Some(devices)).set_resources(Some(resources));
}

/// Whether the rules allow this character device: the last one that is about it counts.
fn allows(rules: &[LinuxDeviceCgroup], (major, minor): (i64, i64)) -> bool {
    let is = |number: Option<i64>, wanted| number.is_none_or(|n| n == wanted || n < 0);
    let about = |rule: &&LinuxDeviceCgroup| {
        let kind = matches!(rule.typ(), None | Some(LinuxDeviceType::A | LinuxDeviceType::C));
        kind && is(rule.major(), major) && is(rule.minor(), minor)
    };
    rules.iter().rfind(about).is_some_and(LinuxDeviceCgroup::allow)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_device_says_why() {
        assert!(super::DEVICES.iter().all(|(.., reason)| reason.len() > 10));
    }
}
