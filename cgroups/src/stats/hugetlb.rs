//! Huge pages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::read::{number, or_zero, pairs, value_of};
use crate::cgroup::Cgroup;

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// In use now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// The most that was in use (v1 only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How often the limit was hit.
    #[serde(serialize_with = "or_zero")]
    pub failcnt: Option<u64>,
}

/// By page size, as in the names of the files (`hugetlb.2MB.current`).
pub(super) fn usage(cgroup: &Cgroup) -> BTreeMap<String, Hugetlb> {
    if let Some(dir) = cgroup.v1_dir("hugetlb") {
        let entry = |size: &str| Hugetlb {
            usage: number(Some(dir), &format!("hugetlb.{size}.usage_in_bytes")),
            max: number(Some(dir), &format!("hugetlb.{size}.max_usage_in_bytes")),
            failcnt: number(Some(dir), &format!("hugetlb.{size}.failcnt")),
        };
        return by_size(dir, ".usage_in_bytes", entry);
    }
    let Some(dir) = cgroup.unified() else {
        return BTreeMap::new();
    };
    let entry = |size: &str| Hugetlb {
        usage: number(Some(dir), &format!("hugetlb.{size}.current")),
        max: None,
        failcnt: value_of(&pairs(Some(dir), &format!("hugetlb.{size}.events")), "max"),
    };
    by_size(dir, ".current", entry)
}

fn by_size(dir: &Path, ending: &str, entry: impl Fn(&str) -> Hugetlb) -> BTreeMap<String, Hugetlb> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.filter_map(|file| file.file_name().into_string().ok());
    let size = |name: &str| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
        // "2MB.rsvd" are reservations.
        (!size.contains('.')).then(|| (size.to_owned(), entry(size)))
    };
    names.filter_map(|name| size(&name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;

    #[test]
    fn sizes() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.events", "max 6\n"),
            ("hugetlb.1GB.current", "0\n"),
        ];
        let hugetlb = container(dir.path(), &[], &files).stats().hugetlb;
        assert_eq!(hugetlb.keys().collect::<Vec<_>>(), ["1GB", "2MB"]);
        assert_eq!((hugetlb["2MB"].usage, hugetlb["2MB"].failcnt), (Some(4_194_304), Some(6)));
    }
}
