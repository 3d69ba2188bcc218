//! Number of tasks.

use serde::Serialize;

use super::read::{Limit, limit, number};
use crate::cgroup::Cgroup;

/// Tasks (threads count) of the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// How many there may be; `None` without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// The files are the same in both versions.
pub(super) fn usage(cgroup: &Cgroup) -> Pids {
    let dir = cgroup.v1_dir("pids").or_else(|| cgroup.unified());
    let limit = match limit(dir, "pids.max") {
        Some(Limit::At(value)) => Some(value),
        Some(Limit::None) | None => None,
    };
    Pids { current: number(dir, "pids.current"), limit }
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;

    #[test]
    fn limits() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("pids.current", "3\n"), ("pids.max", "max\n")];
        let pids = container(dir.path(), &[], &files).stats().pids;
        assert_eq!((pids.current, pids.limit), (Some(3), None));
        let files = [("pids/pids.current", "4\n"), ("pids/pids.max", "100\n")];
        let pids = container(dir.path(), &files, &[]).stats().pids;
        assert_eq!((pids.current, pids.limit), (Some(4), Some(100)));
    }
}
