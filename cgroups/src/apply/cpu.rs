//! `linux.resources.cpu`: shares of time, hard limits, and which CPUs and memory nodes.
//!
//! | field | v1 | v2 |
//! |---|---|---|
//! | `shares` (2..262144, default 1024) | `cpu.shares` | `cpu.weight` (1..10000, default 100) |
//! | `quota`, `period` (µs) | `cpu.cfs_quota_us`, `cpu.cfs_period_us` | `cpu.max` "quota period" |
//! | `burst` (µs) | `cpu.cfs_burst_us` | `cpu.max.burst` |
//! | `idle` | `cpu.idle` | `cpu.idle` |
//! | `realtimeRuntime`, `realtimePeriod` | `cpu.rt_runtime_us`, `cpu.rt_period_us` | refused |
//! | `cpus`, `mems` | `cpuset.cpus`, `cpuset.mems` | the same |

use oci_spec::runtime::LinuxResources;

use super::Setting;
use crate::error::{Error, Result};

/// Period that the kernel starts with, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn plan_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(cpu) = resources.cpu() else {
        return Ok(settings);
    };
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.push(Setting::new("cpu.shares", "cpu.shares", shares).exact());
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        settings.push(Setting::new("cpu.period", "cpu.cfs_period_us", period));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting::new("cpu.burst", "cpu.cfs_burst_us", burst));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        settings.push(Setting::new("cpu.quota", "cpu.cfs_quota_us", quota));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(Setting::new("cpu.idle", "cpu.idle", idle));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        settings.push(Setting::new("cpu.realtimePeriod", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.push(Setting::new("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime));
    }
    Ok(settings)
}

pub(super) fn plan_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(cpu) = resources.cpu() else {
        return Ok(settings);
    };
    let realtime = [
        ("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|v| v != 0)),
        ("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|v| v != 0)),
    ];
    if let Some((field, _)) = realtime.into_iter().find(|(_, given)| *given) {
        let reason = "cgroup v2 has no limit of realtime scheduling".to_owned();
        return Err(Error::Unsupported { field: field.to_owned(), reason });
    }
    if let Some(idle) = cpu.idle() {
        settings.push(Setting::new("cpu.idle", "cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        settings.push(Setting::new("cpu.shares", "cpu.weight", weight_of_shares(shares)));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting::new("cpu.burst", "cpu.max.burst", burst));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let time = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |us| us.to_string());
        let value = format!("{time} {}", period.unwrap_or(DEFAULT_PERIOD));
        let field = if quota.is_some() { "cpu.quota" } else { "cpu.period" };
        settings.push(Setting::new(field, "cpu.max", value));
    }
    Ok(settings)
}

pub(super) fn plan_cpuset(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(cpu) = resources.cpu() else {
        return Ok(settings);
    };
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        settings.push(Setting::new("cpu.cpus", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        settings.push(Setting::new("cpu.mems", "cpuset.mems", mems));
    }
    Ok(settings)
}

/// v1 shares as a v2 weight: the curve through minimum (2 → 1), default (1024 → 100) and maximum
/// (262144 → 10000) that runc and crun use, quadratic in the logarithms.
fn weight_of_shares(shares: u64) -> u64 {
    const MAX_SHARES: u64 = 1 << 18;
    match shares {
        ..=2 => 1,
        MAX_SHARES.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCpu;

    fn texts(settings: Vec<Setting>) -> Vec<(String, String)> {
        settings.into_iter().map(|mut s| (s.files.remove(0), s.value)).collect()
    }

    fn with(change: impl FnOnce(&mut LinuxCpu)) -> LinuxResources {
        let mut cpu = LinuxCpu::default();
        change(&mut cpu);
        let mut resources = LinuxResources::default();
        resources.set_cpu(Some(cpu));
        resources
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(file, value)| (file.to_string(), value.to_string())).collect()
    }

    #[test]
    fn shares_to_weight() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (1 << 20, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        let all: Vec<u64> = (2..=262_144).map(weight_of_shares).collect();
        assert!(all.is_sorted());
    }

    #[test]
    fn v2_max() {
        for (quota, period, expected) in [
            (Some(50_000), None, Some("50000 100000")),
            (Some(50_000), Some(20_000), Some("50000 20000")),
            (Some(-1), None, Some("max 100000")),
            (None, Some(20_000), Some("max 20000")),
            (Some(0), Some(0), None),
        ] {
            let resources = with(|cpu| {
                cpu.set_quota(quota).set_period(period);
            });
            let settings = plan_v2(&resources).unwrap();
            assert_eq!(settings.first().map(|s| s.value.as_str()), expected, "{quota:?}");
        }
    }

    #[test]
    fn all_fields() {
        let mut resources = with(|cpu| {
            cpu.set_shares(Some(1024)).set_quota(Some(5000)).set_period(Some(10_000));
            cpu.set_burst(Some(100)).set_idle(Some(1));
            cpu.set_cpus(Some("0-1".to_owned())).set_mems(Some("0".to_owned()));
        });
        let v2 = [
            ("cpu.idle", "1"),
            ("cpu.weight", "100"),
            ("cpu.max.burst", "100"),
            ("cpu.max", "5000 10000"),
        ];
        assert_eq!(texts(plan_v2(&resources).unwrap()), pairs(&v2));
        let cpuset = [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")];
        assert_eq!(texts(plan_cpuset(&resources).unwrap()), pairs(&cpuset));
        let v1 = [
            ("cpu.shares", "1024"),
            ("cpu.cfs_period_us", "10000"),
            ("cpu.cfs_burst_us", "100"),
            ("cpu.cfs_quota_us", "5000"),
            ("cpu.idle", "1"),
        ];
        assert_eq!(texts(plan_v1(&resources).unwrap()), pairs(&v1));
        let cpu = resources.cpu_mut().as_mut().unwrap();
        cpu.set_realtime_runtime(Some(1));
        assert!(plan_v2(&resources).unwrap_err().to_string().contains("realtimeRuntime"));
    }
}
