//! `/proc/vmstat`.

use std::fmt::Write;

use crate::view::View;
use crate::view::memory::MemoryStat;

/// Bytes in a page.
const PAGE: u64 = 4096;

/// The host's names in the host's order, with what is counted for the container's cgroup; what is
/// not counted for cgroups is 0.
pub fn vmstat(view: &View) -> String {
    let levels = view.levels("memory");
    let counted = levels.list.first().and_then(|own| own.text("memory.stat")).unwrap_or_default();
    let stat = if levels.v2 { MemoryStat::v2(&counted) } else { MemoryStat::v1(&counted) };
    let memory = view.memory();
    let io = view.io();
    let mut text = String::with_capacity(4096);
    for line in view.host.text("proc/vmstat").lines() {
        let name = line.split(' ').next().unwrap_or(line);
        let value = match name {
            "nr_free_pages" => (memory.total - memory.used) / PAGE,
            // Kilobytes to and from disks.
            "pgpgin" => io.values().map(|d| d.read_bytes).sum::<u64>() / 1024,
            "pgpgout" => io.values().map(|d| d.write_bytes).sum::<u64>() / 1024,
            _ => pages(&stat, name).unwrap_or_else(|| event(&counted, levels.v2, name)),
        };
        writeln!(text, "{name} {value}").expect("writing to a string");
    }
    text
}

/// Pages by what they are used for.
fn pages(stat: &MemoryStat, name: &str) -> Option<u64> {
    let bytes = match name {
        "nr_zone_inactive_anon" | "nr_inactive_anon" => stat.inactive_anon,
        "nr_zone_active_anon" | "nr_active_anon" => stat.active_anon,
        "nr_zone_inactive_file" | "nr_inactive_file" => stat.inactive_file,
        "nr_zone_active_file" | "nr_active_file" => stat.active_file,
        "nr_zone_unevictable" | "nr_unevictable" => stat.unevictable,
        "nr_anon_pages" => stat.anon,
        "nr_mapped" => stat.file_mapped,
        "nr_file_pages" => stat.file,
        "nr_dirty" => stat.file_dirty,
        "nr_writeback" => stat.file_writeback,
        "nr_shmem" => stat.shmem,
        "nr_slab_reclaimable" => stat.slab_reclaimable,
        "nr_slab_unreclaimable" => stat.slab_unreclaimable,
        "nr_page_table_pages" => stat.pagetables,
        "nr_sec_page_table_pages" => stat.sec_pagetables,
        // In KiB, unlike the others.
        "nr_kernel_stack" => return Some(stat.kernel_stack / 1024),
        "nr_swapcached" => stat.swapcached,
        _ => return None,
    };
    Some(bytes / PAGE)
}

/// Events that the cgroup counts by the same name.
fn event(counted: &str, v2: bool, name: &str) -> u64 {
    let key = if v2 { name.to_owned() } else { format!("total_{name}") };
    crate::view::cgroup::value_of(counted, &key).unwrap_or(0)
}
