//! `/proc/meminfo`.

use std::fmt::Write;

use crate::view::View;
use crate::view::memory::Memory;

/// The host's fields in the host's order, with the container's values.
pub fn meminfo(view: &View) -> String {
    filled(view, &view.host.text("proc/meminfo"), "")
}

/// The fields of a template, whose lines begin with `prefix`, with the container's values.
pub fn filled(view: &View, template: &str, prefix: &str) -> String {
    let memory = view.memory();
    let page_size = view.host.meminfo("Hugepagesize");
    let mut text = String::with_capacity(template.len() + 64);
    for line in template.lines() {
        let Some((name, rest)) = line.strip_prefix(prefix).and_then(|l| l.split_once(':')) else {
            continue;
        };
        let native = rest.split_whitespace().next().and_then(|v| v.parse().ok()).unwrap_or(0);
        let value = match name {
            "HugePages_Total" => memory.huge_total,
            "HugePages_Free" => memory.huge_total - memory.huge_used,
            "Hugepagesize" => page_size,
            "Hugetlb" => memory.huge_total * page_size,
            // The size of the address space, no use of anything.
            "VmallocTotal" => native,
            _ => bytes(&memory, page_size * 1024, name) / 1024,
        };
        let unit = if rest.ends_with(" kB") { " kB" } else { "" };
        text.push_str(prefix);
        put(&mut text, name, value, unit);
    }
    text
}

/// The bytes of a field. Fields that have no meaning for a container, or that the kernel does not
/// count for cgroups, are 0.
fn bytes(memory: &Memory, huge_page: u64, name: &str) -> u64 {
    let stat = &memory.stat;
    let free = memory.total - memory.used;
    match name {
        "MemTotal" => memory.total,
        "MemFree" => free,
        "MemAvailable" => {
            let reclaimable = stat.active_file + stat.inactive_file + stat.slab_reclaimable;
            (free + reclaimable.min(memory.used)).min(memory.total)
        }
        "MemUsed" => memory.used,
        "Cached" | "FilePages" => stat.file,
        "SwapCached" => stat.swapcached,
        "Active" => stat.active_anon + stat.active_file,
        "Inactive" => stat.inactive_anon + stat.inactive_file,
        "Active(anon)" => stat.active_anon,
        "Inactive(anon)" => stat.inactive_anon,
        "Active(file)" => stat.active_file,
        "Inactive(file)" => stat.inactive_file,
        // Locked pages are what makes a container's memory unevictable.
        "Unevictable" | "Mlocked" => stat.unevictable,
        "SwapTotal" => memory.swap_total,
        "SwapFree" => memory.swap_total - memory.swap_used,
        "Zswap" => stat.zswap,
        "Zswapped" => stat.zswapped,
        "Dirty" => stat.file_dirty,
        "Writeback" => stat.file_writeback,
        "AnonPages" => stat.anon,
        "Mapped" => stat.file_mapped,
        "Shmem" => stat.shmem,
        "KReclaimable" | "SReclaimable" => stat.slab_reclaimable,
        "Slab" => stat.slab_reclaimable + stat.slab_unreclaimable,
        "SUnreclaim" => stat.slab_unreclaimable,
        "KernelStack" => stat.kernel_stack,
        "PageTables" => stat.pagetables,
        "SecPageTables" => stat.sec_pagetables,
        "VmallocUsed" => stat.vmalloc,
        "Percpu" => stat.percpu,
        "AnonHugePages" => stat.anon_thp,
        "ShmemHugePages" => stat.shmem_thp,
        "FileHugePages" => stat.file_thp,
        // As with the kernel's default, half of the memory and all swap. Cgroups don't count what
        // was promised, so what is in use stands for it.
        "CommitLimit" => (memory.total - memory.huge_total * huge_page) / 2 + memory.swap_total,
        "Committed_AS" => stat.anon + stat.shmem + memory.swap_used,
        "DirectMap4k" => memory.total,
        _ => 0,
    }
}

/// Writes a line with the kernel's widths: values end at column 24 unless they are too long.
fn put(text: &mut String, name: &str, value: u64, unit: &str) {
    let label = format!("{name}:");
    let width = 24_usize.saturating_sub(label.len().max(16));
    writeln!(text, "{label:<16}{value:>width$}{unit}").expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_like_the_kernels() {
        let mut text = String::new();
        for (name, value, unit) in [
            ("MemTotal", 24683656, " kB"),
            ("VmallocTotal", 34359738367, " kB"),
            ("HardwareCorrupted", 0, " kB"),
            ("HugePages_Total", 0, ""),
            ("ShmemPmdMapped", 12, " kB"),
        ] {
            put(&mut text, name, value, unit);
        }
        assert_eq!(
            text,
            "MemTotal:       24683656 kB\n\
             VmallocTotal:   34359738367 kB\n\
             HardwareCorrupted:     0 kB\n\
             HugePages_Total:       0\n\
             ShmemPmdMapped:       12 kB\n"
        );
    }
}
