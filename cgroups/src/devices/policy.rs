//! Device rules in a form that is easy to reason about.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};

/// Kinds of device files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Char,
}

/// A set of accesses, with the bits of the kernel (`BPF_DEVCG_ACC_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u8);

impl Access {
    pub(crate) const ALL: Access = Access(Self::MKNOD | Self::READ | Self::WRITE);
    const MKNOD: u8 = 1;
    const READ: u8 = 2;
    const WRITE: u8 = 4;

    /// Reads letters; as runc, it passes over those that mean nothing.
    fn parse(text: &str) -> Access {
        text.chars().fold(Access(0), |Access(bits), letter| match letter {
            'm' => Access(bits | Self::MKNOD),
            'r' => Access(bits | Self::READ),
            'w' => Access(bits | Self::WRITE),
            _ => Access(bits),
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")];
        letters.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, l)| out.write_str(l))
    }
}

/// One rule. `None` is "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) kind: Kind,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: Access,
}

impl Rule {
    /// Do both speak of the same devices?
    fn same_devices(&self, other: &Rule) -> bool {
        self.covers(other) && other.covers(self)
    }

    /// Does this rule speak of all the devices of the other?
    fn covers(&self, other: &Rule) -> bool {
        let covers = |ours: Option<u32>, theirs| ours.is_none() || ours == theirs;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
    }

    /// Is there an access to a device of which both speak?
    fn overlaps(&self, other: &Rule) -> bool {
        let meet = |ours: Option<u32>, theirs: Option<u32>| {
            ours.is_none() || theirs.is_none() || ours == theirs
        };
        self.kind == other.kind
            && meet(self.major, other.major)
            && meet(self.minor, other.minor)
            && self.access.0 & other.access.0 != 0
    }
}

/// A default, and rules of which the last that speaks of an access decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What holds for an access that no rule speaks of.
    pub(crate) allow_by_default: bool,
    pub(crate) rules: Vec<Rule>,
}

impl Policy {
    /// The meaning of `linux.resources.devices`. Without rules nothing is allowed.
    pub(crate) fn new<'a>(
        rules: impl IntoIterator<Item = &'a LinuxDeviceCgroup>,
    ) -> Result<Policy> {
        let mut policy = Policy { allow_by_default: false, rules: Vec::new() };
        for rule in rules {
            policy.add(rule)?;
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let major = device_number("major", rule.major())?;
        let minor = device_number("minor", rule.minor())?;
        let text = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(text);
        let kinds: &[Kind] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => &[Kind::Char, Kind::Block],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Char],
            LinuxDeviceType::P => return Err(bad("type", "a FIFO is no device")),
        };
        // "All devices": whatever was said before no longer counts. As in runc, such a rule may
        // leave the accesses out.
        let all_accesses = access == Access::ALL || text.is_empty();
        if kinds.len() == 2 && major.is_none() && minor.is_none() && all_accesses {
            *self = Policy { allow_by_default: rule.allow(), rules: Vec::new() };
            return Ok(());
        }
        if access.0 == 0 {
            return Ok(());
        }
        for kind in kinds {
            self.push(Rule { allow: rule.allow(), kind: *kind, major, minor, access });
        }
        Ok(())
    }

    /// Adds a rule, in the shortest way that says the same.
    fn push(&mut self, rule: Rule) {
        if rule.allow == self.allow_by_default {
            // Back to the default: take it off the exceptions, and keep the rule itself only
            // where it makes a hole in a wider one.
            for other in self.rules.iter_mut().filter(|other| rule.covers(other)) {
                other.access.0 &= !rule.access.0;
            }
            self.rules.retain(|other| other.access.0 != 0);
            if !self.rules.iter().any(|other| other.overlaps(&rule)) {
                return;
            }
        } else if self.one_sort(rule.allow)
            && let Some(other) = self.rules.iter_mut().find(|other| other.same_devices(&rule))
        {
            other.access.0 |= rule.access.0;
            return;
        }
        self.rules.push(rule);
    }

    /// Are all rules of this sort (allow or deny)?
    pub(crate) fn one_sort(&self, allow: bool) -> bool {
        self.rules.iter().all(|rule| rule.allow == allow)
    }
}

/// A number of a rule; absent and -1 are "any".
fn device_number(field: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        // The kernel's device numbers have 12 and 20 bits; the upper bound keeps the sign clear.
        Some(number @ 0..=0x7fff_ffff) => Ok(Some(number as u32)),
        Some(number) => Err(bad(field, &format!("{number} is no device number"))),
    }
}

fn bad(field: &str, reason: &str) -> Error {
    Error::Unsupported {
        field: format!("linux.resources.devices.{field}"),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Policy> {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        Policy::new(&rules)
    }

    #[test]
    fn the_last_rule_about_everything_forgets_the_rest() {
        let text = r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},
            {"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":5,"minor":-1,"access":"r"}]"#;
        let policy = policy(text).unwrap();
        assert!(!policy.allow_by_default);
        let rule = Rule {
            allow: true,
            kind: Kind::Char,
            major: Some(5),
            minor: None,
            access: Access(Access::READ),
        };
        assert_eq!(policy.rules, [rule]);
    }

    #[test]
    fn accesses_to_the_same_devices_are_joined() {
        let text = r#"[{"allow":true,"type":"c","major":5,"minor":1,"access":"r"},
            {"allow":true,"type":"c","major":5,"minor":1,"access":"w"},
            {"allow":false,"type":"c","major":9,"minor":9,"access":""}]"#;
        let policy = policy(text).unwrap();
        assert_eq!(policy.rules.len(), 1);
        assert_eq!(policy.rules[0].access.to_string(), "rw");
    }

    #[test]
    fn going_back_to_the_default() {
        let rules = |text: &str| -> Vec<String> {
            let text = format!(r#"[{{"allow":false,"access":"rwm"}},{text}]"#);
            let rules = policy(&text).unwrap().rules;
            let text = |rule: &Rule| {
                let sign = if rule.allow { '+' } else { '-' };
                format!("{sign}{:?}:{:?} {}", rule.major, rule.minor, rule.access)
            };
            rules.iter().map(text).collect()
        };
        let allow_5_1 = r#"{"allow":true,"type":"c","major":5,"minor":1,"access":"rw"}"#;
        let allow_5 = r#"{"allow":true,"type":"c","major":5,"access":"rw"}"#;
        let deny_5_1 = r#"{"allow":false,"type":"c","major":5,"minor":1,"access":"w"}"#;
        let deny_5 = r#"{"allow":false,"type":"c","major":5,"access":"rwm"}"#;
        assert_eq!(rules(deny_5_1), [""; 0]);
        assert_eq!(rules(&format!("{allow_5_1},{deny_5_1}")), ["+Some(5):Some(1) r"]);
        assert_eq!(rules(&format!("{allow_5_1},{deny_5}")), [""; 0]);
        let hole = ["+Some(5):None rw", "-Some(5):Some(1) w"];
        assert_eq!(rules(&format!("{allow_5},{deny_5_1}")), hole);
        let filled = [hole[0], hole[1], "+Some(5):Some(1) rw"];
        assert_eq!(rules(&format!("{allow_5},{deny_5_1},{allow_5_1}")), filled);
    }

    #[test]
    fn any_kind_with_numbers_is_two_rules() {
        let policy = policy(r#"[{"allow":true,"type":"a","major":10,"access":"rwm"}]"#).unwrap();
        let kinds: Vec<_> = policy.rules.iter().map(|rule| rule.kind).collect();
        assert_eq!(kinds, [Kind::Char, Kind::Block]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
            r#"[{"allow":true,"type":"c","major":4294967297,"access":"r"}]"#,
            r#"[{"allow":true,"type":"p","access":"r"}]"#,
        ] {
            assert!(policy(text).is_err(), "{text}");
        }
    }
}
