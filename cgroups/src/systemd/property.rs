//! Properties of a unit, and what limits are called as such.
//!
//! systemd writes the limits of a unit again whenever it likes: at `daemon-reload`, or when something
//! beside the unit changes. What it knows it therefore has to be told, or it would put back its own
//! values. What it does not know (`hugetlb`, `rdma`, `io.max` of a device that it was not told of, the
//! device filter) it leaves alone.
//!
//! The same goes for controllers in v1, where systemd also has a list of devices: [`super::devices`]. Their
//! properties are the older ones, since systemd would convert the newer ones to values of its own.
//!
//! | cgroup v1 file | property | |
//! |---|---|---|
//! | `memory.limit_in_bytes` | `MemoryLimit` | bytes |
//! | `pids.max` | `TasksMax` | |
//! | `cpu.shares` | `CPUShares` | |
//! | `cpu.cfs_period_us`, `cpu.cfs_quota_us` | `CPUQuotaPeriodUSec`, `CPUQuotaPerSecUSec` | whole percents, rounded up |
//! | `blkio.weight` | `BlockIOWeight` | |
//!
//! | cgroup v2 file | property | |
//! |---|---|---|
//! | `memory.max`, `.high`, `.low`, `.min`, `.swap.max` | `MemoryMax`, ..., `MemorySwapMax` | bytes |
//! | `pids.max` | `TasksMax` | |
//! | `cpu.weight` | `CPUWeight` | |
//! | `cpu.idle` | `CPUWeight` of 0 | systemd 252 |
//! | `cpu.max` | `CPUQuotaPeriodUSec`, `CPUQuotaPerSecUSec` | whole percents, rounded up |
//! | `cpuset.cpus`, `cpuset.mems` | `AllowedCPUs`, `AllowedMemoryNodes` | bit masks |
//! | `io.weight` | `IOWeight` | |

use super::message::Writer;

/// "No limit", for systemd.
const INFINITY: u64 = u64::MAX;
/// One percent of a processor, in microseconds a second.
const PERCENT: u64 = 10_000;
/// Highest processor or memory node that is believed to exist (the kernel's `NR_CPUS` is below).
const HIGHEST: usize = 1 << 16;
/// v1 files of the limit of CPU time, which together are what `cpu.max` is in v2.
pub(super) const PERIOD: &str = "cpu.cfs_period_us";
pub(super) const QUOTA: &str = "cpu.cfs_quota_us";

/// A value of one of the types that properties have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

/// A property with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    name: &'static str,
    pub(super) value: Value,
    /// Only newer versions of systemd take it.
    pub(super) recent: bool,
}

impl Property {
    pub(super) fn new(name: &'static str, value: Value) -> Property {
        Property { name, value, recent: false }
    }

    fn number(name: &'static str, value: u64) -> Property {
        Property::new(name, Value::U64(value))
    }
}

/// Writes properties as `a(sv)`.
pub(super) fn write(writer: &mut Writer, properties: &[Property]) {
    writer.array(8, |writer| {
        for Property { name, value, .. } in properties {
            writer.align(8);
            writer.string(name);
            match value {
                Value::Bool(value) => {
                    writer.signature("b");
                    writer.bool(*value);
                }
                Value::U64(value) => {
                    writer.signature("t");
                    writer.u64(*value);
                }
                Value::Text(value) => {
                    writer.signature("s");
                    writer.string(value);
                }
                Value::Numbers(values) => {
                    writer.signature("au");
                    writer.array(4, |writer| values.iter().for_each(|value| writer.u32(*value)));
                }
                Value::Bytes(values) => {
                    writer.signature("ay");
                    writer.array(1, |writer| values.iter().for_each(|value| writer.byte(*value)));
                }
                Value::Pairs(pairs) => {
                    writer.signature("a(ss)");
                    writer.array(8, |writer| {
                        for (first, second) in pairs {
                            writer.align(8);
                            writer.string(first);
                            writer.string(second);
                        }
                    });
                }
            }
        }
    });
}

/// The properties for limits, which are given as `(file, value)` of either version. Files that have no
/// property are passed over, and so are values that only the kernel understands ("1G").
pub(super) fn of_limits<'a>(
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<Property> {
    let settings: Vec<_> = settings.into_iter().map(|(file, value)| (file, value.trim())).collect();
    let mut properties: Vec<_> =
        settings.iter().flat_map(|(file, value)| of_limit(file, value)).collect();
    let of_file = |name| settings.iter().find(|(file, _)| *file == name).map(|(_, value)| *value);
    if let Some(time) = of_file(QUOTA) {
        let time = if time.starts_with('-') { "max" } else { time };
        let period = of_file(PERIOD).unwrap_or_default();
        properties.extend(quota(&format!("{time} {period}")).unwrap_or_default());
    }
    // An idle cgroup has no weight, and both are one property.
    if properties.iter().any(|property| property.recent) {
        properties.retain(|property| property.name != "CPUWeight" || property.recent);
    }
    properties
}

fn of_limit(file: &str, value: &str) -> Vec<Property> {
    let number = || if value == "max" { Some(INFINITY) } else { value.parse().ok() };
    let property = |name| number().map(|number| Property::number(name, number));
    let mask = |name| bits(value).map(|bits| Property::new(name, Value::Bytes(bits)));
    let found = match file {
        "memory.limit_in_bytes" if value == "-1" => Some(Property::number("MemoryLimit", INFINITY)),
        "memory.limit_in_bytes" => property("MemoryLimit"),
        "cpu.shares" => property("CPUShares"),
        "blkio.weight" => property("BlockIOWeight"),
        "memory.max" => property("MemoryMax"),
        "memory.high" => property("MemoryHigh"),
        "memory.low" => property("MemoryLow"),
        "memory.min" => property("MemoryMin"),
        "memory.swap.max" => property("MemorySwapMax"),
        "pids.max" => property("TasksMax"),
        "cpu.weight" => property("CPUWeight"),
        "cpu.idle" if value == "1" => {
            Some(Property { recent: true, ..Property::number("CPUWeight", 0) })
        }
        "cpu.max" => return quota(value).unwrap_or_default(),
        "cpuset.cpus" => mask("AllowedCPUs"),
        "cpuset.mems" => mask("AllowedMemoryNodes"),
        "io.weight" => {
            let weight = value.strip_prefix("default").unwrap_or(value).trim().parse();
            weight.ok().map(|weight| Property::number("IOWeight", weight))
        }
        _ => None,
    };
    found.into_iter().collect()
}

/// `cpu.max`: "quota period" or "quota", in microseconds.
fn quota(value: &str) -> Option<Vec<Property>> {
    let mut parts = value.split_whitespace();
    let quota = parts.next()?;
    let period: u64 = parts.next().map_or(Some(100_000), |period| period.parse().ok())?;
    let per_second = match quota {
        "max" => INFINITY,
        quota => {
            let quota: u64 = quota.parse().ok()?;
            let exact = quota.checked_mul(1_000_000)?.checked_div(period)?;
            // systemd keeps whole percents, cut off, in the file that it reads after a reload. Its
            // value must not be below the one that was asked for.
            exact.checked_next_multiple_of(PERCENT)?
        }
    };
    Some(vec![
        Property::number("CPUQuotaPeriodUSec", period),
        Property::number("CPUQuotaPerSecUSec", per_second),
    ])
}

/// A list such as "0-3,8" as a bit mask, lowest byte first.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        for bit in first..=last {
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(settings: &[(&str, &str)]) -> Vec<(&'static str, u64)> {
        of_limits(settings.iter().copied())
            .into_iter()
            .map(|property| match property.value {
                Value::U64(number) => (property.name, number),
                other => panic!("{}: {other:?}", property.name),
            })
            .collect()
    }

    #[test]
    fn limits_with_one_number() {
        let settings = [
            ("memory.max", "1048576"),
            ("memory.swap.max", "max"),
            ("pids.max", "100"),
            ("io.weight", "default 50"),
            // Neither of these has a property, and the last only the kernel can read.
            ("hugetlb.2MB.max", "0"),
            ("cpu.max.burst", "7"),
            ("memory.high", "1G"),
        ];
        let expected = [
            ("MemoryMax", 1 << 20),
            ("MemorySwapMax", INFINITY),
            ("TasksMax", 100),
            ("IOWeight", 50),
        ];
        assert_eq!(numbers(&settings), expected);
    }

    #[test]
    fn limits_of_v1() {
        let settings = [
            ("memory.limit_in_bytes", "1048576"),
            ("memory.memsw.limit_in_bytes", "2097152"),
            ("cpu.shares", "512"),
            (PERIOD, "50000\n"),
            (QUOTA, "12345"),
            ("blkio.weight", "300"),
            ("blkio.bfq.weight", "300"),
        ];
        let expected = [
            ("MemoryLimit", 1 << 20),
            ("CPUShares", 512),
            ("BlockIOWeight", 300),
            ("CPUQuotaPeriodUSec", 50_000),
            ("CPUQuotaPerSecUSec", 250_000),
        ];
        assert_eq!(numbers(&settings), expected);
        let unlimited = [("memory.limit_in_bytes", "-1"), (QUOTA, "-1")];
        let expected = [
            ("MemoryLimit", INFINITY),
            ("CPUQuotaPeriodUSec", 100_000),
            ("CPUQuotaPerSecUSec", INFINITY),
        ];
        assert_eq!(numbers(&unlimited), expected);
        // Alone it says nothing about the time.
        assert!(numbers(&[(PERIOD, "50000")]).is_empty());
    }

    #[test]
    fn quota_is_rounded_up_to_whole_percents() {
        for (value, period, per_second) in [
            ("50000 100000", 100_000, 500_000),
            ("12345 100000", 100_000, 130_000),
            ("1000 1000000", 1_000_000, 10_000),
            ("200000", 100_000, 2_000_000),
            ("max 50000", 50_000, INFINITY),
        ] {
            let expected = [("CPUQuotaPeriodUSec", period), ("CPUQuotaPerSecUSec", per_second)];
            assert_eq!(numbers(&[("cpu.max", value)]), expected, "{value}");
        }
        for value in ["", "x", "1 0", "1 y"] {
            assert!(numbers(&[("cpu.max", value)]).is_empty(), "{value:?}");
        }
    }

    #[test]
    fn idle_takes_the_place_of_the_weight() {
        assert_eq!(numbers(&[("cpu.idle", "0"), ("cpu.weight", "39")]), [("CPUWeight", 39)]);
        let idle = of_limits([("cpu.idle", "1"), ("cpu.weight", "39")]);
        assert_eq!(idle, [Property { recent: true, ..Property::number("CPUWeight", 0) }]);
    }

    #[test]
    fn lists_are_bit_masks() {
        assert_eq!(bits("0-3,8"), Some(vec![0b1111, 1]));
        assert_eq!(bits("15, 9"), Some(vec![0, 0b1000_0010]));
        for list in ["", "3-1", "a", "0-99999999999", "-"] {
            assert_eq!(bits(list), None, "{list:?}");
        }
    }
}
