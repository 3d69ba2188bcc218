//! Memory, swap, and what they are made of.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::read::{Limit, Pressure, limit, number, or_zero, pairs, value_of};
use crate::cgroup::Cgroup;

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<u64>,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory **plus** swap, in both versions.
    pub swap: MemoryEntry,
    /// Kernel memory (v1 only).
    pub kernel: MemoryEntry,
    /// TCP buffers (v1 only).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// Every line of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Waiting for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Use and limit of one kind of memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The limit; a very large number where there is none.
    #[serde(serialize_with = "or_zero")]
    pub limit: Option<u64>,
    /// In use now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// The most that was in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// How often the limit was hit.
    #[serde(serialize_with = "or_zero")]
    pub failcnt: Option<u64>,
}

pub(super) fn usage(cgroup: &Cgroup) -> Memory {
    match cgroup.v1_dir("memory") {
        Some(dir) => v1(dir),
        None => cgroup.unified().map(v2).unwrap_or_default(),
    }
}

fn v1(dir: &Path) -> Memory {
    let entry = |prefix: &str| {
        let number = |name: &str| number(Some(dir), &format!("memory.{prefix}{name}"));
        MemoryEntry {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
        }
    };
    let raw = pairs(Some(dir), "memory.stat");
    Memory {
        // The total is of the cgroup with all below it, as everything else here.
        cache: value_of(&raw, "total_cache").or_else(|| value_of(&raw, "cache")),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        raw: raw.into_iter().collect(),
        psi: None,
    }
}

fn v2(dir: &Path) -> Memory {
    let dir = Some(dir);
    let usage = MemoryEntry {
        limit: limit(dir, "memory.max").map(Limit::or_largest),
        usage: number(dir, "memory.current"),
        max: number(dir, "memory.peak"),
        failcnt: value_of(&pairs(dir, "memory.events"), "max"),
    };
    // v2 counts swap alone; the sum is what readers of these numbers know from v1.
    let plus = |memory: Option<u64>, swap: Option<u64>| Some(memory?.saturating_add(swap?));
    let swap = MemoryEntry {
        limit: plus(usage.limit, limit(dir, "memory.swap.max").map(Limit::or_largest)),
        usage: plus(usage.usage, number(dir, "memory.swap.current")),
        max: None,
        failcnt: value_of(&pairs(dir, "memory.swap.events"), "max"),
    };
    let raw = pairs(dir, "memory.stat");
    Memory {
        cache: value_of(&raw, "file"),
        usage,
        swap,
        raw: raw.into_iter().collect(),
        ..Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;

    #[test]
    fn v2_swap_is_with_memory() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory.max", "1000\n"),
            ("memory.current", "300\n"),
            ("memory.swap.max", "500\n"),
            ("memory.swap.current", "20\n"),
            ("memory.stat", "anon 200\nfile 90\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\n"),
        ];
        let memory = container(dir.path(), &[], &files).stats().memory;
        assert_eq!((memory.usage.limit, memory.usage.usage), (Some(1000), Some(300)));
        assert_eq!((memory.swap.limit, memory.swap.usage), (Some(1500), Some(320)));
        assert_eq!((memory.cache, memory.usage.failcnt), (Some(90), Some(4)));
        assert_eq!(memory.raw["anon"], 200);
    }

    #[test]
    fn v2_without_limits() {
        let dir = tempfile::tempdir().unwrap();
        let files = [("memory.max", "max\n"), ("memory.swap.max", "max\n")];
        let memory = container(dir.path(), &[], &files).stats().memory;
        assert_eq!((memory.usage.limit, memory.swap.limit), (Some(u64::MAX), Some(u64::MAX)));
    }

    #[test]
    fn v1() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("memory/memory.limit_in_bytes", "1000\n"),
            ("memory/memory.usage_in_bytes", "300\n"),
            ("memory/memory.memsw.usage_in_bytes", "320\n"),
            ("memory/memory.stat", "cache 10\ntotal_cache 12\n"),
        ];
        let memory = container(dir.path(), &files, &[("memory.current", "9\n")]).stats().memory;
        assert_eq!((memory.usage.usage, memory.swap.usage), (Some(300), Some(320)));
        assert_eq!((memory.cache, memory.kernel.usage), (Some(12), None));
    }
}
