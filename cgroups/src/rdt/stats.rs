//! What a container uses of caches and memory bandwidth: `intel_rdt` of runc's `stats` events.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Group;

/// Serialises as `data.intel_rdt` of a `stats` event of runc; what cannot be read is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RdtStats {
    /// What the hardware can do with the L3 caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheInfo>,
    /// Line of the L3 caches in the schemata of all tasks that are in no other class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The same line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// What it can do with memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthInfo>,
    /// Line of memory bandwidth, as above.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The same line of the container's class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// Memory bandwidth that was used, by L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<Bandwidth>>,
    /// Cache that is in use, by L3 cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<Occupancy>>,
}

/// `info/L3`
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CacheInfo {
    /// The mask that stands for the whole cache.
    pub cbm_mask: String,
    /// Bits that a mask has at least.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// `info/MB`
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BandwidthInfo {
    /// Percents are rounded up to a multiple of this.
    pub bandwidth_gran: u64,
    /// Whether delays are linear.
    pub delay_linear: u64,
    /// Smallest percentage.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Bytes that went between an L3 cache and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bandwidth {
    /// All of them.
    pub mbm_total_bytes: u64,
    /// Those of the memory that is near the cache.
    pub mbm_local_bytes: u64,
}

/// Bytes that are in an L3 cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Occupancy {
    /// How many.
    pub llc_occupancy: u64,
}

impl Group {
    /// Reads what the container uses. Never fails: what cannot be read is left out, or 0 where a number has to
    /// be.
    pub fn stats(&self) -> RdtStats {
        let info = self.root.join("info");
        let schemata = |dir: &Path| fs::read_to_string(dir.join("schemata")).unwrap_or_default();
        let (root, class) = (schemata(&self.root), schemata(&self.dir));
        let mut stats = RdtStats::default();
        // With separate masks for code and data there are two of each.
        let l3 = ["L3", "L3CODE"].map(|name| info.join(name)).into_iter().find(|dir| dir.is_dir());
        if let Some(l3) = l3 {
            stats.l3_cache_info = Some(CacheInfo {
                cbm_mask: text(&l3.join("cbm_mask")).unwrap_or_default(),
                min_cbm_bits: number(&l3.join("min_cbm_bits")),
                num_closids: number(&l3.join("num_closids")),
            });
            stats.l3_cache_schema_root = line(&root, "L3");
            stats.l3_cache_schema = line(&class, "L3");
        }
        let memory = info.join("MB");
        if memory.is_dir() {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&memory.join("bandwidth_gran")),
                delay_linear: number(&memory.join("delay_linear")),
                min_bandwidth: number(&memory.join("min_bandwidth")),
                num_closids: number(&memory.join("num_closids")),
            });
            stats.mem_bw_schema_root = line(&root, "MB:");
            stats.mem_bw_schema = line(&class, "MB:");
        }
        let features = text(&info.join("L3_MON/mon_features")).unwrap_or_default();
        let has = |name: &str| features.lines().any(|line| line == name);
        let data = self.monitor.as_ref().unwrap_or(&self.dir).join("mon_data");
        let mut caches: Vec<_> =
            fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        caches.sort();
        if has("mbm_total_bytes") || has("mbm_local_bytes") {
            let of = |dir: &std::path::PathBuf| Bandwidth {
                mbm_total_bytes: number(&dir.join("mbm_total_bytes")),
                mbm_local_bytes: number(&dir.join("mbm_local_bytes")),
            };
            stats.mbm_stats = Some(caches.iter().map(of).collect());
        }
        if has("llc_occupancy") {
            let of = |dir: &std::path::PathBuf| Occupancy {
                llc_occupancy: number(&dir.join("llc_occupancy")),
            };
            stats.cmt_stats = Some(caches.iter().map(of).collect());
        }
        stats
    }
}

fn text(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

/// A number; 0 for the words that the kernel has for "not now".
fn number(file: &Path) -> u64 {
    text(file).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn line(schemata: &str, start: &str) -> String {
    let mut lines = schemata.lines().map(str::trim);
    lines.rfind(|line| line.starts_with(start)).unwrap_or_default().to_owned()
}
