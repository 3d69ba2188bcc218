//! Reading numbers from cgroup files; what cannot be read is `None`.

use std::path::Path;

use serde::{Serialize, Serializer};

use crate::file;

/// Serialises a number that runc always prints: missing counts as zero.
pub(super) fn or_zero<S: Serializer>(value: &Option<u64>, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_u64(value.unwrap_or(0))
}

/// A file that holds one number.
pub(super) fn number(dir: Option<&Path>, name: &str) -> Option<u64> {
    file::read(dir?, name).ok()?.trim().parse().ok()
}

/// A file that holds one limit: a number, or `max` for none.
pub(super) fn limit(dir: Option<&Path>, name: &str) -> Option<Limit> {
    let text = file::read(dir?, name).ok()?;
    match text.trim() {
        "max" => Some(Limit::None),
        number => number.parse().ok().map(Limit::At),
    }
}

/// A limit of a v2 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    At(u64),
}

impl Limit {
    /// As a number of which "none" is the largest.
    pub(super) fn or_largest(self) -> u64 {
        match self {
            Limit::None => u64::MAX,
            Limit::At(value) => value,
        }
    }
}

/// A file of `key value` lines.
pub(super) fn pairs(dir: Option<&Path>, name: &str) -> Vec<(String, u64)> {
    let text = dir.and_then(|dir| file::read(dir, name).ok()).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The value of one key.
pub(super) fn value_of(pairs: &[(String, u64)], key: &str) -> Option<u64> {
    pairs.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
}

/// How much tasks have been waiting for a resource (Documentation/accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some task waited.
    pub some: PressureLine,
    /// All tasks that were not idle waited.
    pub full: PressureLine,
}

/// Shares of time in percent, and the total in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Over the last 10 seconds.
    pub avg10: f64,
    /// Over the last minute.
    pub avg60: f64,
    /// Over the last five minutes.
    pub avg300: f64,
    /// Since the cgroup was made, in microseconds.
    pub total: u64,
}

/// A `*.pressure` file. `None` also where the kernel was booted without pressure accounting.
pub(super) fn pressure(dir: &Path, name: &str) -> Option<Pressure> {
    let text = file::read(dir, name).ok()?;
    let line = |kind: &str| -> Option<PressureLine> {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |key: &str| {
            let mut fields = line.split_whitespace();
            fields.find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        };
        Some(PressureLine {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total: value("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}
