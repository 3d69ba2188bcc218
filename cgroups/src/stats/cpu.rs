//! CPU time, throttling, and the CPUs that may be used.

use std::path::Path;

use serde::Serialize;

use super::read::{Pressure, number, or_zero, pairs, value_of};
use crate::cgroup::Cgroup;
use crate::file;

/// CPU time and throttling.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time denied by a quota.
    pub throttling: Throttling,
    /// Waiting for a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// CPU time since the cgroup was made, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// By CPU (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By CPU, in the kernel (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By CPU, in user space (v1 only).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    #[serde(serialize_with = "or_zero")]
    pub kernel: Option<u64>,
    /// In user space.
    #[serde(serialize_with = "or_zero")]
    pub user: Option<u64>,
}

/// What a quota did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub periods: Option<u64>,
    /// Periods in which the quota was used up.
    #[serde(rename = "throttledPeriods", skip_serializing_if = "Option::is_none")]
    pub throttled_periods: Option<u64>,
    /// Time that tasks were held back, in nanoseconds.
    #[serde(rename = "throttledTime", skip_serializing_if = "Option::is_none")]
    pub throttled_time: Option<u64>,
}

/// CPUs and memory nodes. All but the two lists are v1 only.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuSet {
    /// CPUs that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`
    #[serde(serialize_with = "or_zero")]
    pub cpu_exclusive: Option<u64>,
    /// Memory nodes that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`
    #[serde(serialize_with = "or_zero")]
    pub mem_hardwall: Option<u64>,
    /// `cpuset.mem_exclusive`
    #[serde(serialize_with = "or_zero")]
    pub mem_exclusive: Option<u64>,
    /// `cpuset.memory_migrate`
    #[serde(serialize_with = "or_zero")]
    pub memory_migrate: Option<u64>,
    /// `cpuset.memory_spread_page`
    #[serde(serialize_with = "or_zero")]
    pub memory_spread_page: Option<u64>,
    /// `cpuset.memory_spread_slab`
    #[serde(serialize_with = "or_zero")]
    pub memory_spread_slab: Option<u64>,
    /// `cpuset.memory_pressure`
    #[serde(serialize_with = "or_zero")]
    pub memory_pressure: Option<u64>,
    /// `cpuset.sched_load_balance`
    #[serde(serialize_with = "or_zero")]
    pub sched_load_balance: Option<u64>,
    /// `cpuset.sched_relax_domain_level`
    pub sched_relax_domain_level: i64,
}

/// The time, from `cpuacct` and `cpu` of v1, or from `cpu.stat` of v2, which has the times even
/// where the controller is off.
pub(super) fn usage(cgroup: &Cgroup) -> Cpu {
    let v2 = pairs(cgroup.unified(), "cpu.stat");
    let nanoseconds = |key: &str| value_of(&v2, key).map(|us| us * 1000);
    let usage = cgroup.v1_dir("cpuacct").map(usage_v1).unwrap_or_else(|| CpuUsage {
        total: nanoseconds("usage_usec"),
        kernel: nanoseconds("system_usec"),
        user: nanoseconds("user_usec"),
        ..CpuUsage::default()
    });
    let throttling = match cgroup.v1_dir("cpu") {
        Some(dir) => {
            let v1 = pairs(Some(dir), "cpu.stat");
            Throttling {
                periods: value_of(&v1, "nr_periods"),
                throttled_periods: value_of(&v1, "nr_throttled"),
                throttled_time: value_of(&v1, "throttled_time"),
            }
        }
        None => Throttling {
            periods: value_of(&v2, "nr_periods"),
            throttled_periods: value_of(&v2, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
    };
    Cpu { usage, throttling, psi: None }
}

fn usage_v1(dir: &Path) -> CpuUsage {
    let percpu = |name: &str| -> Vec<u64> {
        let text = file::read(dir, name).unwrap_or_default();
        text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    CpuUsage {
        total: number(Some(dir), "cpuacct.usage"),
        percpu: percpu("cpuacct.usage_percpu"),
        percpu_kernel: percpu("cpuacct.usage_percpu_sys"),
        percpu_user: percpu("cpuacct.usage_percpu_user"),
        kernel: number(Some(dir), "cpuacct.usage_sys"),
        user: number(Some(dir), "cpuacct.usage_user"),
    }
}

pub(super) fn set(cgroup: &Cgroup) -> CpuSet {
    let list = |dir: Option<&Path>, name: &str| {
        dir.and_then(|dir| file::read(dir, name).ok()).map(|text| ranges(&text)).unwrap_or_default()
    };
    let Some(dir) = cgroup.v1_dir("cpuset") else {
        return CpuSet {
            cpus: list(cgroup.unified(), "cpuset.cpus.effective"),
            mems: list(cgroup.unified(), "cpuset.mems.effective"),
            ..CpuSet::default()
        };
    };
    let dir = Some(dir);
    let level = dir.and_then(|dir| file::read(dir, "cpuset.sched_relax_domain_level").ok());
    CpuSet {
        cpus: list(dir, "cpuset.cpus"),
        cpu_exclusive: number(dir, "cpuset.cpu_exclusive"),
        mems: list(dir, "cpuset.mems"),
        mem_hardwall: number(dir, "cpuset.mem_hardwall"),
        mem_exclusive: number(dir, "cpuset.mem_exclusive"),
        memory_migrate: number(dir, "cpuset.memory_migrate"),
        memory_spread_page: number(dir, "cpuset.memory_spread_page"),
        memory_spread_slab: number(dir, "cpuset.memory_spread_slab"),
        memory_pressure: number(dir, "cpuset.memory_pressure"),
        sched_load_balance: number(dir, "cpuset.sched_load_balance"),
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    }
}

/// `0-3,7` as single numbers.
fn ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(ranges("0-3,7\n"), [0, 1, 2, 3, 7]);
        assert_eq!(ranges("\n"), [0_u16; 0]);
        assert_eq!(ranges("5"), [5]);
    }

    #[test]
    fn v2() {
        let dir = tempfile::tempdir().unwrap();
        let stat = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\n\
                    throttled_usec 7\n";
        let files = [("cpu.stat", stat), ("cpuset.cpus.effective", "0-1\n")];
        let stats = container(dir.path(), &[], &files).stats();
        let usage = &stats.cpu.usage;
        assert_eq!(
            (usage.total, usage.user, usage.kernel),
            (Some(30_000), Some(20_000), Some(10_000))
        );
        assert_eq!(stats.cpu.throttling.throttled_time, Some(7000));
        assert_eq!(stats.cpuset.cpus, [0, 1]);
    }

    #[test]
    fn hybrid_takes_v1() {
        let dir = tempfile::tempdir().unwrap();
        let v1 = [
            ("cpuacct/cpuacct.usage", "33\n"),
            ("cpuacct/cpuacct.usage_percpu", "11 22 \n"),
            ("cpuacct/cpuacct.usage_user", "30\n"),
            ("cpu/cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n"),
        ];
        let stats = container(dir.path(), &v1, &[("cpu.stat", "usage_usec 999\n")]).stats();
        assert_eq!(stats.cpu.usage.total, Some(33));
        assert_eq!(stats.cpu.usage.percpu, [11, 22]);
        assert_eq!(stats.cpu.usage.kernel, None);
        assert_eq!(stats.cpu.throttling.throttled_time, Some(7));
    }
}
