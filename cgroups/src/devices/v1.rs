//! Device rules as the list of a v1 `devices` cgroup.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::policy::{Access, Kind, Policy, Rule};
use crate::error::{Error, Result};
use crate::file;

/// What `devices.list` shows when everything is allowed.
const EVERYTHING: &str = "a *:* rwm";

/// Makes the list of `dir` say what `policy` says, with as few writes as possible, so that a
/// running container never loses a device that it keeps.
pub(super) fn install(dir: &Path, policy: &Policy) -> Result<()> {
    // The kernel's list has a default and exceptions from it, but no order.
    let exceptions_allow = !policy.allow_by_default;
    if !policy.one_sort(exceptions_allow) {
        return Err(Error::Unsupported {
            field: "linux.resources.devices".to_owned(),
            reason: "cgroup v1 cannot except a device from an exception: list what is allowed \
                     (after a rule that denies all) or what is denied (after one that allows all), \
                     not both"
                .to_owned(),
        });
    }
    let wanted: BTreeSet<String> = policy.rules.iter().map(entry).collect();
    let write = |name: &str, value: &str| {
        file::write(dir, name, value).map_err(|source| failed(dir, name, value, source))
    };
    if policy.allow_by_default {
        write("devices.allow", "a")?;
        return wanted.iter().try_for_each(|entry| write("devices.deny", entry));
    }
    let list = file::read(dir, "devices.list")
        .map_err(|source| failed(dir, "devices.list", "", source))?;
    let now: BTreeSet<String> = list.lines().map(|line| line.trim().to_owned()).collect();
    if now.contains(EVERYTHING) {
        write("devices.deny", "a")?;
        return wanted.iter().try_for_each(|entry| write("devices.allow", entry));
    }
    // What is taken away may be a part of what is to stay ("c 5:* r" and "c 5:1 rw"), so the
    // wanted entries are all given after it, also those already there.
    let extra: Vec<_> = now.difference(&wanted).collect();
    extra.iter().try_for_each(|entry| write("devices.deny", entry))?;
    let missing = wanted.iter().filter(|entry| !extra.is_empty() || !now.contains(*entry));
    missing.into_iter().try_for_each(|entry| write("devices.allow", entry))
}

/// A rule as the kernel writes and reads it: `c 1:3 rwm`.
fn entry(rule: &Rule) -> String {
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    let kind = match rule.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let Rule { major, minor, access, .. } = rule;
    format!("{kind} {}:{} {}", number(*major), number(*minor), Access(access.0))
}

fn failed(dir: &Path, name: &str, value: &str, source: io::Error) -> Error {
    Error::Limit {
        field: "linux.resources.devices".to_owned(),
        value: value.to_owned(),
        path: dir.join(name),
        source,
        hint: String::new(),
    }
}
