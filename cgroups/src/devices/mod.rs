//! Which devices a container may use: `linux.resources.devices`.
//!
//! A rule allows or denies some accesses (read, write, mknod) to some devices; the last rule that
//! speaks of an access decides. v1 has a kernel list for that (`devices.allow`, `devices.deny`), v2
//! an eBPF program that the kernel asks at every `open` and `mknod` of a device.

mod policy;
mod program;
mod v1;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxResources,
};
use sysbox_kernel::bpf;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
pub(crate) use policy::{Access, Kind, Policy, Rule};

/// A character device by number, for [`device_rules`].
pub type CharDevice = (i64, i64);

/// `/dev/fuse`, which inner engines and `fuse-overlayfs` open.
pub const FUSE: CharDevice = (10, 229);

/// `/dev/net/tun`, for VPNs and rootless networks inside.
pub const TUN: CharDevice = (10, 200);

/// What every container gets: those of runc, and the console.
const ALWAYS: [(i64, Option<i64>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// The device rules of a container: those of its specification, then what every container gets
/// (null, zero, full, random, urandom, tty, console, ptmx, pts; `mknod` of any device, which says
/// nothing about opening it), then the character devices of `extra`, read and write.
pub fn device_rules(spec: &[LinuxDeviceCgroup], extra: &[CharDevice]) -> Vec<LinuxDeviceCgroup> {
    let allow = |kind, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(kind)
            .access(access)
            .build()
            .unwrap_or_default();
        rule.set_major(major).set_minor(minor);
        rule
    };
    let mut rules = spec.to_vec();
    rules.push(allow(LinuxDeviceType::C, None, None, "m"));
    rules.push(allow(LinuxDeviceType::B, None, None, "m"));
    let always = ALWAYS.iter().copied();
    let extra = extra.iter().map(|(major, minor)| (*major, Some(*minor)));
    for (major, minor) in always.chain(extra) {
        rules.push(allow(LinuxDeviceType::C, Some(major), minor, "rwm"));
    }
    rules
}

/// Do these resources allow every access to every device, as those of `docker run --privileged`
/// do? (Without any rule the answer is no.)
pub fn allows_all_devices(resources: &LinuxResources) -> bool {
    let rules = resources.devices().iter().flatten();
    Policy::new(rules).is_ok_and(|policy| policy.allow_by_default && policy.rules.is_empty())
}

/// Makes the device rules of a cgroup be `rules`, at creation or as an update.
pub(crate) fn install(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    let policy = Policy::new(rules)?;
    if let Some(dir) = cgroup.v1_dir("devices") {
        return v1::install(dir, &policy);
    }
    let Some(dir) = cgroup.unified() else {
        return Err(Error::NoController {
            field: "linux.resources.devices".to_owned(),
            controller: "devices".to_owned(),
            path: cgroup.main_dir().to_owned(),
        });
    };
    install_v2(dir, &policy).map_err(|source| Error::DeviceFilter { path: dir.to_owned(), source })
}

fn install_v2(dir: &Path, policy: &Policy) -> io::Result<()> {
    let cgroup = File::open(dir)?;
    let program = bpf::load_device_program(&program::build(policy))?;
    let old = bpf::device_programs(&cgroup)?;
    // One program is replaced in one step; with several (systemd may have put its own beside ours)
    // the new one comes first, so that there is no moment without a filter.
    if let [only] = &old[..]
        && bpf::attach_device_program(&cgroup, &program, Some(only.as_fd())).is_ok()
    {
        return Ok(());
    }
    bpf::attach_device_program(&cgroup, &program, None)?;
    old.iter().try_for_each(|old| bpf::detach_device_program(&cgroup, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn privileged() {
        let yes = [
            r#"{"devices":[{"allow":true,"access":"rwm"}]}"#,
            r#"{"devices":[{"allow":true,"type":"a","major":-1,"minor":-1,"access":"rwm"}]}"#,
            r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"rwm"}]}"#,
        ];
        for json in yes {
            assert!(allows_all_devices(&resources(json)), "{json}");
        }
        let no = [
            r#"{}"#,
            r#"{"devices":[]}"#,
            r#"{"devices":[{"allow":true,"type":"c","access":"rwm"}]}"#,
            r#"{"devices":[{"allow":true,"access":"rm"}]}"#,
            r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"access":"rwm"}]}"#,
            r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"}]}"#,
        ];
        for json in no {
            assert!(!allows_all_devices(&resources(json)), "{json}");
        }
    }

    #[test]
    fn privileged_stays_so_with_the_defaults() {
        let all = resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
        let mut with = LinuxResources::default();
        with.set_devices(Some(device_rules(all.devices().as_ref().unwrap(), &[FUSE])));
        assert!(allows_all_devices(&with));
    }

    #[test]
    fn defaults_are_added() {
        let rules = device_rules(&[], &[FUSE, TUN]);
        let text = |rule: &LinuxDeviceCgroup| {
            let number = |part: Option<i64>| part.map_or("*".to_owned(), |n| n.to_string());
            let kind = rule.typ().unwrap().as_str().to_owned();
            let access = rule.access().clone().unwrap();
            format!("{kind} {}:{} {access}", number(rule.major()), number(rule.minor()))
        };
        let texts: Vec<_> = rules.iter().map(text).collect();
        assert!(rules.iter().all(|rule| rule.allow()));
        for expected in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rwm", "c 10:229 rwm"] {
            assert!(texts.iter().any(|text| text == expected), "{expected} in {texts:?}");
        }
        assert_eq!(rules.len(), 13);
    }
}
