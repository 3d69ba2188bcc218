//! Memory of a container: its limit, its use, and what the use is made of.

use super::{Levels, View};

/// What `memory.stat` tells, bytes. Fields that a kernel does not have are 0.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // named after the kernel's keys, admin-guide/cgroup-v2.rst
pub struct MemoryStat {
    pub anon: u64,
    pub file: u64,
    pub kernel_stack: u64,
    pub pagetables: u64,
    pub sec_pagetables: u64,
    pub percpu: u64,
    pub vmalloc: u64,
    pub shmem: u64,
    pub zswap: u64,
    pub zswapped: u64,
    pub file_mapped: u64,
    pub file_dirty: u64,
    pub file_writeback: u64,
    pub swapcached: u64,
    pub anon_thp: u64,
    pub file_thp: u64,
    pub shmem_thp: u64,
    pub inactive_anon: u64,
    pub active_anon: u64,
    pub inactive_file: u64,
    pub active_file: u64,
    pub unevictable: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
}

/// Memory as the reader's machine has it, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The tightest limit on the reader's path, at most the host's memory.
    pub total: u64,
    /// Use of the cgroup that has this limit, at most `total`.
    pub used: u64,
    /// Swap that may be used: the tightest limit, at most the host's swap.
    pub swap_total: u64,
    /// Swap in use, at most `swap_total`.
    pub swap_used: u64,
    /// What `used` is made of.
    pub stat: MemoryStat,
    /// Huge pages (of the default size) that may be used and that are, if the host has a pool.
    pub huge_total: u64,
    /// Huge pages in use.
    pub huge_used: u64,
}

impl View<'_> {
    /// The reader's memory.
    pub fn memory(&self) -> Memory {
        let host_total = self.host.meminfo("MemTotal") * 1024;
        let host_swap = self.host.meminfo("SwapTotal") * 1024;
        let levels = self.levels("memory");
        let v2 = levels.v2;
        let limit = |i: usize| {
            if v2 {
                let level = &levels.list[i];
                least(level.limit("memory.max"), level.limit("memory.high"))
            } else {
                levels.list[i].limit("memory.limit_in_bytes")
            }
        };
        let (level, total) = tightest(&levels, limit, host_total);
        let Some(level) = level.and_then(|i| levels.list.get(i)) else {
            return Memory::unknown(host_total, host_swap);
        };
        let used = level.number(if v2 { "memory.current" } else { "memory.usage_in_bytes" });
        let text = level.text("memory.stat").unwrap_or_default();
        let mut stat = if v2 { MemoryStat::v2(&text) } else { MemoryStat::v1(&text) };
        if !v2 {
            // v1 counts the kernel's own memory in one sum.
            stat.slab_unreclaimable = level.number("memory.kmem.usage_in_bytes").unwrap_or(0);
        }
        let (swap_total, swap_used) = swap(&levels, host_swap);
        let (huge_total, huge_used) = self.huge_pages();
        Memory {
            total,
            used: used.unwrap_or(0).min(total),
            swap_total,
            swap_used: swap_used.min(swap_total),
            stat,
            huge_total,
            huge_used,
        }
    }

    /// Huge pages of the default size: how many may be used, and how many are.
    fn huge_pages(&self) -> (u64, u64) {
        let pool = self.host.meminfo("HugePages_Total");
        let size = self.host.meminfo("Hugepagesize") * 1024;
        if pool == 0 || size == 0 {
            return (0, 0);
        }
        let levels = self.levels("hugetlb");
        let name = if size.is_multiple_of(1 << 30) {
            format!("hugetlb.{}GB", size >> 30)
        } else {
            format!("hugetlb.{}MB", size >> 20)
        };
        let (max, current) =
            if levels.v2 { ("max", "current") } else { ("limit_in_bytes", "usage_in_bytes") };
        let limit = |i: usize| levels.list[i].limit(&format!("{name}.{max}"));
        let (level, bytes) = tightest(&levels, limit, pool * size);
        let level = level.and_then(|i| levels.list.get(i));
        let used = level.and_then(|l| l.number(&format!("{name}.{current}"))).unwrap_or(0);
        (bytes / size, (used / size).min(bytes / size))
    }
}

/// The level with the tightest limit, and that limit, cut to the host's size. Of equal limits the
/// outer one counts; without a limit it is the container's own level. No level at all: none.
fn tightest(
    levels: &Levels,
    limit: impl Fn(usize) -> Option<u64>,
    host: u64,
) -> (Option<usize>, u64) {
    let mut best = (None, host);
    for i in 0..levels.list.len() {
        let bytes = limit(i).unwrap_or(u64::MAX);
        if best.0.is_none() || bytes < best.1 {
            best = (Some(i), bytes.min(best.1));
        }
    }
    best
}

/// Swap that may be used and that is, bytes.
fn swap(levels: &Levels, host: u64) -> (u64, u64) {
    if host == 0 {
        return (0, 0);
    }
    if levels.v2 {
        let (level, total) = tightest(levels, |i| levels.list[i].limit("memory.swap.max"), host);
        let used = level.and_then(|i| levels.list[i].number("memory.swap.current"));
        return (total, used.unwrap_or(0));
    }
    // v1 limits memory and swap together.
    let limit = |i: usize| {
        let both = levels.list[i].limit("memory.memsw.limit_in_bytes")?;
        Some(both.saturating_sub(levels.list[i].limit("memory.limit_in_bytes").unwrap_or(0)))
    };
    let (level, total) = tightest(levels, limit, host);
    let used = level.and_then(|i| levels.list[i].keyed("memory.stat", "total_swap"));
    (total, used.unwrap_or(0))
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

impl Memory {
    /// A container whose cgroup can't be read: the host's size, nothing used.
    fn unknown(total: u64, swap_total: u64) -> Self {
        let stat = MemoryStat::default();
        Self { total, used: 0, swap_total, swap_used: 0, stat, huge_total: 0, huge_used: 0 }
    }
}

impl MemoryStat {
    /// Parses cgroup v2's `memory.stat`.
    pub fn v2(text: &str) -> Self {
        let mut stat = Self::default();
        for (key, value) in pairs(text) {
            let field = match key {
                "anon" => &mut stat.anon,
                "file" => &mut stat.file,
                "kernel_stack" => &mut stat.kernel_stack,
                "pagetables" => &mut stat.pagetables,
                "sec_pagetables" => &mut stat.sec_pagetables,
                "percpu" => &mut stat.percpu,
                "vmalloc" => &mut stat.vmalloc,
                "shmem" => &mut stat.shmem,
                "zswap" => &mut stat.zswap,
                "zswapped" => &mut stat.zswapped,
                "file_mapped" => &mut stat.file_mapped,
                "file_dirty" => &mut stat.file_dirty,
                "file_writeback" => &mut stat.file_writeback,
                "swapcached" => &mut stat.swapcached,
                "anon_thp" => &mut stat.anon_thp,
                "file_thp" => &mut stat.file_thp,
                "shmem_thp" => &mut stat.shmem_thp,
                "inactive_anon" => &mut stat.inactive_anon,
                "active_anon" => &mut stat.active_anon,
                "inactive_file" => &mut stat.inactive_file,
                "active_file" => &mut stat.active_file,
                "unevictable" => &mut stat.unevictable,
                "slab_reclaimable" => &mut stat.slab_reclaimable,
                "slab_unreclaimable" => &mut stat.slab_unreclaimable,
                _ => continue,
            };
            *field = value;
        }
        stat
    }

    /// Parses v1's `memory.stat`; only the `total_` keys include the cgroups below.
    pub fn v1(text: &str) -> Self {
        let mut stat = Self::default();
        for (key, value) in pairs(text) {
            let field = match key {
                "total_rss" => &mut stat.anon,
                "total_cache" => &mut stat.file,
                "total_shmem" => &mut stat.shmem,
                "total_mapped_file" => &mut stat.file_mapped,
                "total_dirty" => &mut stat.file_dirty,
                "total_writeback" => &mut stat.file_writeback,
                "total_swapcached" => &mut stat.swapcached,
                "total_rss_huge" => &mut stat.anon_thp,
                "total_inactive_anon" => &mut stat.inactive_anon,
                "total_active_anon" => &mut stat.active_anon,
                "total_inactive_file" => &mut stat.inactive_file,
                "total_active_file" => &mut stat.active_file,
                "total_unevictable" => &mut stat.unevictable,
                _ => continue,
            };
            *field = value;
        }
        stat
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.parse().ok()?))
    })
}
