//! Device rules as properties of a unit, for controllers in v1.
//!
//! There systemd writes the kernel's device list of each unit that it manages, and does so again at every
//! reload. Without rules of its own it would allow everything.
//!
//! What it can be told is: a device by number, all devices of a kind, and those of a driver by the name
//! that /proc/devices has for it. That name may stand for more than one major number. Any other rule for
//! several devices is told as those that exist now; the list that the kernel gets from us
//! ([`crate::Cgroup::apply`]) has the rule itself.

use std::fs;

use oci_spec::runtime::LinuxDeviceCgroup;

use super::property::{Property, Value};
use crate::devices::{Access, Kind, Policy, Rule};
use crate::error::Result;

/// Lists of the host's devices: /proc/devices, and a directory with an entry `MAJOR:MINOR` for each.
struct Host<'a> {
    drivers: &'a str,
    existing: &'a dyn Fn(Kind) -> Vec<(u32, u32)>,
}

/// The properties for these rules.
pub(super) fn properties(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Property>> {
    let drivers = fs::read_to_string("/proc/devices").unwrap_or_default();
    let policy = Policy::new(rules)?;
    Ok(of_policy(&policy, &Host { drivers: &drivers, existing: &existing }))
}

fn of_policy(policy: &Policy, host: &Host<'_>) -> Vec<Property> {
    let strict = !policy.allow_by_default;
    // What is denied after all is allowed cannot be told.
    let allowed = policy.rules.iter().filter(|rule| strict && rule.allow);
    let entries = allowed.flat_map(|rule| entries(rule, host)).collect();
    let mode = if strict { "strict" } else { "auto" };
    vec![
        Property::new("DevicePolicy", Value::Text(mode.to_owned())),
        // An empty list takes back what was told before.
        Property::new("DeviceAllow", Value::Pairs(Vec::new())),
        Property::new("DeviceAllow", Value::Pairs(entries)),
    ]
}

/// A rule as systemd.resource-control(5) has it.
fn entries(rule: &Rule, host: &Host<'_>) -> Vec<(String, String)> {
    let access = Access(rule.access.0).to_string();
    let kind = match rule.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    if let (None, None) = (rule.major, rule.minor) {
        return vec![(format!("{kind}-*"), access)];
    }
    if let (Some(major), None) = (rule.major, rule.minor)
        && let Some(driver) = driver(host.drivers, rule.kind, major)
    {
        return vec![(format!("{kind}-{driver}"), access)];
    }
    let devices = match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => vec![(major, minor)],
        _ => (host.existing)(rule.kind),
    };
    let fits = |ours: Option<u32>, theirs| ours.is_none_or(|ours| ours == theirs);
    let meant = devices.into_iter();
    let meant = meant.filter(|(major, minor)| fits(rule.major, *major) && fits(rule.minor, *minor));
    meant.map(|(major, minor)| (format!("/dev/{kind}/{major}:{minor}"), access.clone())).collect()
}

/// Name of the driver that has this major number, and no other driver's devices: systemd would allow
/// them, too. The terminals of /dev/pts are one driver with several numbers.
fn driver(list: &str, kind: Kind, major: u32) -> Option<&str> {
    let title = match kind {
        Kind::Block => "Block devices:",
        Kind::Char => "Character devices:",
    };
    let lines = list.lines().skip_while(|line| *line != title).skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let drivers: Vec<(u32, &str)> = lines
        .filter_map(|line| {
            let (number, name) = line.trim().split_once(' ')?;
            Some((number.parse().ok()?, name))
        })
        .collect();
    let (_, name) = drivers.iter().find(|(number, _)| *number == major)?;
    let alone = drivers.iter().filter(|(_, other)| other == name).count() == 1;
    let is_plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    ((alone || *name == "pts") && is_plain).then_some(*name)
}

/// Numbers of the devices that exist.
fn existing(kind: Kind) -> Vec<(u32, u32)> {
    let dir = match kind {
        Kind::Block => "/sys/dev/block",
        Kind::Char => "/sys/dev/char",
    };
    let numbers = |name: String| {
        let (major, minor) = name.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| numbers(entry.file_name().into_string().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVERS: &str = "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n136 pts\n137 pts\n\n\
                           Block devices:\n  8 sd\n 65 sd\n  7 loop\n";

    fn told(json: &str) -> (String, Vec<String>) {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        let existing = |kind| match kind {
            Kind::Block => vec![(8, 0), (8, 1), (65, 0)],
            Kind::Char => vec![(4, 64), (5, 1)],
        };
        let host = Host { drivers: DRIVERS, existing: &existing };
        let properties = of_policy(&Policy::new(&rules).unwrap(), &host);
        let values: Vec<_> = properties.into_iter().map(|property| property.value).collect();
        let [Value::Text(policy), Value::Pairs(none), Value::Pairs(list)] = &values[..] else {
            panic!("{values:?}");
        };
        assert!(none.is_empty());
        (policy.clone(), list.iter().map(|(device, access)| format!("{device} {access}")).collect())
    }

    #[test]
    fn rules_become_a_list() {
        let (policy, list) = told(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","access":"m"},
                {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
                {"allow":true,"type":"c","major":136,"access":"rwm"},
                {"allow":true,"type":"b","major":7,"access":"r"},
                {"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":true,"type":"c","minor":1,"access":"r"}]"#,
        );
        assert_eq!(policy, "strict");
        let expected = [
            "char-* m",
            "/dev/char/1:3 rwm",
            "char-pts rwm",
            "block-loop r",
            // Not "block-sd", which is 65 as well.
            "/dev/block/8:0 r",
            "/dev/block/8:1 r",
            "/dev/char/5:1 r",
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn nothing_and_everything() {
        assert_eq!(told("[]"), ("strict".to_owned(), Vec::new()));
        assert_eq!(told(r#"[{"allow":true,"access":"rwm"}]"#), ("auto".to_owned(), Vec::new()));
    }

    #[test]
    fn what_is_denied_again_is_left_out() {
        // As the runtime has it: all terminals of 5, but not the host's console.
        let (_, list) = told(
            r#"[{"allow":true,"type":"c","major":5,"minor":1,"access":"rwm"},
                {"allow":false,"type":"c","major":5,"minor":1,"access":"rw"}]"#,
        );
        assert_eq!(list, ["/dev/char/5:1 m"]);
    }
}
