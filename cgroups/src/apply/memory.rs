//! `linux.resources.memory`.
//!
//! | field | v1 | v2 |
//! |---|---|---|
//! | `limit` | `memory.limit_in_bytes` | `memory.max` |
//! | `swap` (memory **plus** swap) | `memory.memsw.limit_in_bytes` | `memory.swap.max` = swap − limit |
//! | `reservation` | `memory.soft_limit_in_bytes` | `memory.low` |
//! | `swappiness` | `memory.swappiness` | refused |
//! | `disableOOMKiller` | `memory.oom_control` | refused |
//! | `checkBeforeUpdate` | the kernel does it anyway | a limit at or below the use is refused |

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::Setting;
use crate::error::{Error, Result};

/// A field that was given: zero stands for "not given".
fn given(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

pub(super) fn plan_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(memory) = resources.memory() else {
        return Ok(settings);
    };
    if let Some(limit) = given(memory.limit()) {
        settings.push(Setting::new("memory.limit", "memory.limit_in_bytes", limit));
    }
    match (given(memory.limit()), given(memory.swap())) {
        (_, Some(swap)) => {
            settings.push(Setting::new("memory.swap", "memory.memsw.limit_in_bytes", swap));
        }
        // Unlimited memory is not unlimited while memory plus swap is limited.
        (Some(-1), None) => {
            settings.push(Setting::new("memory.swap", "memory.memsw.limit_in_bytes", -1).optional())
        }
        _ => {}
    }
    if let Some(low) = given(memory.reservation()) {
        settings.push(Setting::new("memory.reservation", "memory.soft_limit_in_bytes", low));
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(Setting::new("memory.disableOOMKiller", "memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(unsupported("swappiness", "must be between 0 and 100"));
        }
        settings.push(Setting::new("memory.swappiness", "memory.swappiness", swappiness));
    }
    Ok(settings)
}

pub(super) fn plan_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(memory) = resources.memory() else {
        return Ok(settings);
    };
    if memory.disable_oom_killer() == Some(true) {
        return Err(unsupported("disableOOMKiller", "cgroup v2 cannot disable the OOM killer"));
    }
    if memory.swappiness().is_some() {
        return Err(unsupported("swappiness", "cgroup v2 has no swappiness of a cgroup"));
    }
    if let Some(swap) = swap_v2(memory)? {
        let setting = Setting::new("memory.swap", "memory.swap.max", max_or(swap));
        // A kernel without swap has no such file, and then there is nothing to limit.
        let nothing_to_limit = swap <= 0;
        settings.push(if nothing_to_limit { setting.optional() } else { setting });
    }
    if let Some(limit) = given(memory.limit()) {
        let setting = Setting::new("memory.limit", "memory.max", max_or(limit));
        let check = memory.check_before_update() == Some(true);
        settings.push(if check { setting.above("memory.current") } else { setting });
    }
    if let Some(low) = given(memory.reservation()) {
        settings.push(Setting::new("memory.reservation", "memory.low", max_or(low)));
    }
    Ok(settings)
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

/// Swap alone, from the limit of memory plus swap.
fn swap_v2(memory: &LinuxMemory) -> Result<Option<i64>> {
    let limit = given(memory.limit());
    match (limit, given(memory.swap())) {
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (Some(-1), Some(swap)) => Ok(Some(swap)),
        (None, Some(_)) => Err(unsupported(
            "swap",
            "is memory plus swap, so cgroup v2 needs linux.resources.memory.limit too",
        )),
        (Some(limit), Some(_)) if limit < 0 => Err(unsupported("limit", "is negative")),
        (Some(limit), Some(swap)) if swap < limit => {
            Err(unsupported("swap", "is memory plus swap, and must not be below memory.limit"))
        }
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
    }
}

fn unsupported(field: &str, reason: &str) -> Error {
    Error::Unsupported {
        field: format!("linux.resources.memory.{field}"),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: i64, swap: i64) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit)).set_swap(Some(swap));
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory));
        resources
    }

    fn texts(settings: &[Setting]) -> Vec<(&str, &str)> {
        settings.iter().map(|s| (s.files[0].as_str(), s.value.as_str())).collect()
    }

    #[test]
    fn v2_swap_is_the_difference() {
        // limit, memory plus swap, what memory.swap.max gets
        for (limit, swap, expected) in [
            (100, 200, Some("100")),
            (100, 100, Some("0")),
            (100, -1, Some("max")),
            (100, 0, None),
            (-1, 0, Some("max")),
            (-1, 500, Some("500")),
            (0, -1, Some("max")),
            (0, 0, None),
        ] {
            let settings = plan_v2(&memory(limit, swap)).unwrap();
            let swap_max = settings.iter().find(|s| s.files[0] == "memory.swap.max");
            assert_eq!(swap_max.map(|s| s.value.as_str()), expected, "{limit} {swap}");
        }
        for (limit, swap) in [(0, 100), (200, 100), (-2, 100)] {
            assert!(plan_v2(&memory(limit, swap)).is_err(), "{limit} {swap}");
        }
    }

    #[test]
    fn v1_files() {
        let settings = plan_v1(&memory(100, 200)).unwrap();
        let expected = [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "200")];
        assert_eq!(texts(&settings), expected);
        let settings = plan_v1(&memory(-1, 0)).unwrap();
        assert_eq!(texts(&settings)[1], ("memory.memsw.limit_in_bytes", "-1"));
        assert!(settings[1].optional);
        assert!(plan_v1(&memory(0, 0)).unwrap().is_empty());
    }

    #[test]
    fn the_other_fields() {
        let mut memory = LinuxMemory::default();
        memory.set_reservation(Some(7)).set_swappiness(Some(0)).set_disable_oom_killer(Some(true));
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory));
        let v1 = plan_v1(&resources).unwrap();
        let expected = [
            ("memory.soft_limit_in_bytes", "7"),
            ("memory.oom_control", "1"),
            ("memory.swappiness", "0"),
        ];
        assert_eq!(texts(&v1), expected);
        assert!(plan_v2(&resources).unwrap_err().to_string().contains("disableOOMKiller"));
        memory.set_disable_oom_killer(Some(false));
        resources.set_memory(Some(memory));
        assert!(plan_v2(&resources).unwrap_err().to_string().contains("swappiness"));
        memory.set_swappiness(None).set_limit(Some(5)).set_check_before_update(Some(true));
        resources.set_memory(Some(memory));
        let v2 = plan_v2(&resources).unwrap();
        assert_eq!(texts(&v2), [("memory.max", "5"), ("memory.low", "7")]);
        assert_eq!(v2[0].above, Some("memory.current"));
    }
}
