//! ID mappings of a container: those that the manager makes and those that the spec gives (pure).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sysbox_ipc::proto;

use super::IdRange;
use crate::error::{Error, Result};

/// Most lines that the kernel takes in a uid_map or gid_map (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_LINES: usize = 340;

/// One line of a uid_map or gid_map, user_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id in the container.
    pub inside: u32,
    /// First id on the host.
    pub outside: u32,
    /// Number of ids.
    pub count: u32,
}

impl IdMapping {
    /// The mapping of a container that has `range` for itself: id 0 inside is its first id.
    pub fn whole(range: IdRange) -> Self {
        Self { inside: 0, outside: range.start(), count: range.count() }
    }
}

impl From<&proto::IdMapping> for IdMapping {
    fn from(m: &proto::IdMapping) -> Self {
        Self { inside: m.container_id, outside: m.host_id, count: m.size }
    }
}

impl From<&IdMapping> for proto::IdMapping {
    fn from(m: &IdMapping) -> Self {
        Self { container_id: m.inside, host_id: m.outside, size: m.count }
    }
}

impl From<&IdMapping> for sysbox_kernel::ns::IdMap {
    fn from(m: &IdMapping) -> Self {
        Self { inside: m.inside, outside: m.outside, count: m.count }
    }
}

impl From<&sysbox_kernel::ns::IdMap> for IdMapping {
    fn from(m: &sysbox_kernel::ns::IdMap) -> Self {
        Self { inside: m.inside, outside: m.outside, count: m.count }
    }
}

/// Host ids of `mappings`; a mapping that is no range is left out.
pub fn host_ranges(mappings: &[IdMapping]) -> impl Iterator<Item = IdRange> {
    mappings.iter().filter_map(|m| IdRange::new(m.outside, m.count))
}

/// Host id of the container's root.
pub fn host_root(mappings: &[IdMapping]) -> Option<u32> {
    mappings.iter().find(|m| m.inside == 0 && m.count > 0).map(|m| m.outside)
}

/// Checks mappings that the spec gives (`what` is "uid" or "gid").
pub fn validate(what: &str, mappings: &[IdMapping]) -> Result<()> {
    let refuse = |why: String| {
        let mut text = String::new();
        for m in mappings.iter().take(4) {
            let _ = write!(text, " [{} {} {}]", m.inside, m.outside, m.count);
        }
        Err(Error::new(format!("the {what} mappings of the container{text}: {why}"))
            .remedy("correct linux.uidMappings and linux.gidMappings, or leave them out to get an exclusive range"))
    };
    if mappings.len() > MAX_LINES {
        return refuse(format!("the kernel takes at most {MAX_LINES} of them"));
    }
    let mut seen: Vec<(IdRange, IdRange)> = Vec::new();
    for m in mappings {
        let (Some(inside), Some(outside)) =
            (IdRange::new(m.inside, m.count), IdRange::new(m.outside, m.count))
        else {
            return refuse("a range is empty or reaches beyond the last id".into());
        };
        if outside.start() == 0 {
            return refuse(
                "host id 0 would be given to the container: it would be root of the host".into(),
            );
        }
        if seen.iter().any(|(i, o)| i.overlaps(inside) || o.overlaps(outside)) {
            return refuse("two of them overlap".into());
        }
        seen.push((inside, outside));
    }
    if host_root(mappings).is_none() {
        return refuse(format!("none maps {what} 0, so the container would have no root"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[(u32, u32, u32)]) -> std::result::Result<(), String> {
        let mappings: Vec<_> = lines
            .iter()
            .map(|&(inside, outside, count)| IdMapping { inside, outside, count })
            .collect();
        validate("uid", &mappings).map_err(|e| e.message)
    }

    #[test]
    fn good_mappings_pass() {
        check(&[(0, 100_000, 65536)]).unwrap();
        check(&[(0, 1000, 1), (1, 100_000, 65535)]).unwrap();
    }

    #[test]
    fn bad_mappings_are_refused_with_the_reason() {
        for (lines, why) in [
            (&[(0, 0, 10)][..], "root of the host"),
            (&[(0, 100, 10), (10, 0, 5)][..], "root of the host"),
            (&[(0, 100, 0)][..], "empty"),
            (&[(0, u32::MAX, 1)][..], "beyond"),
            (&[(0, 100, 10), (5, 200, 10)][..], "overlap"),
            (&[(0, 100, 10), (50, 105, 10)][..], "overlap"),
            (&[(1, 100, 10)][..], "no root"),
        ] {
            let error = check(lines).unwrap_err();
            assert!(error.contains(why), "{lines:?}: {error}");
        }
    }
}
