//! `linux.resources.blockIO`: weights and throttles of block devices.
//!
//! | field | v1 | v2 |
//! |---|---|---|
//! | `weight` (10..1000) | `blkio.weight`, or `blkio.bfq.weight` | `io.bfq.weight`, or `io.weight` (1..10000) |
//! | `weightDevice.weight` | `blkio.weight_device`, or `blkio.bfq.weight_device` | `io.bfq.weight` |
//! | `leafWeight`, `weightDevice.leafWeight` | `blkio.leaf_weight`, `blkio.leaf_weight_device` | refused |
//! | `throttle{Read,Write}{Bps,IOPS}Device` | `blkio.throttle.*_device` | `io.max` |

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::Setting;
use crate::error::{Error, Result};

/// The four throttles: field, v1 file, key in v2's `io.max`.
const THROTTLES: [(&str, &str, &str); 4] = [
    ("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
];

/// The devices of each row of [`THROTTLES`].
fn throttled(io: &LinuxBlockIo) -> [&Option<Vec<LinuxThrottleDevice>>; 4] {
    [
        io.throttle_read_bps_device(),
        io.throttle_write_bps_device(),
        io.throttle_read_iops_device(),
        io.throttle_write_iops_device(),
    ]
}

fn given(weight: Option<u16>) -> Option<u16> {
    weight.filter(|weight| *weight != 0)
}

pub(super) fn plan_v1(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(io) = resources.block_io() else {
        return Ok(settings);
    };
    if let Some(weight) = given(io.weight()) {
        let setting = Setting::new("blockIO.weight", "blkio.weight", weight);
        settings.push(setting.or_file("blkio.bfq.weight"));
    }
    if let Some(weight) = given(io.leaf_weight()) {
        settings.push(Setting::new("blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = given(device.weight()) {
            let value = format!("{number} {weight}");
            let setting = Setting::new("blockIO.weightDevice", "blkio.weight_device", value);
            settings.push(setting.or_file("blkio.bfq.weight_device"));
        }
        if let Some(weight) = given(device.leaf_weight()) {
            let value = format!("{number} {weight}");
            let field = "blockIO.weightDevice.leafWeight";
            settings.push(Setting::new(field, "blkio.leaf_weight_device", value));
        }
    }
    for ((field, file, _), devices) in THROTTLES.into_iter().zip(throttled(io)) {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            settings.push(Setting::new(field, file, value));
        }
    }
    Ok(settings)
}

pub(super) fn plan_v2(resources: &LinuxResources) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let Some(io) = resources.block_io() else {
        return Ok(settings);
    };
    let leaf_of_device =
        || io.weight_device().iter().flatten().find_map(|device| given(device.leaf_weight()));
    if given(io.leaf_weight()).or_else(leaf_of_device).is_some() {
        return Err(Error::Unsupported {
            field: "linux.resources.blockIO.leafWeight".to_owned(),
            reason: "cgroup v2 has no leaf weight: its leaves have the weight of the cgroup"
                .to_owned(),
        });
    }
    if let Some(weight) = given(io.weight()) {
        settings.extend(weight_v2(weight)?);
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = given(device.weight()) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            settings.push(Setting::new("blockIO.weightDevice", "io.bfq.weight", value));
        }
    }
    for ((field, _, key), devices) in THROTTLES.into_iter().zip(throttled(io)) {
        for device in devices.iter().flatten() {
            // In v1 a rate of zero lifts the limit; v2 says "max".
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            settings.push(Setting::new(field, "io.max", value));
        }
    }
    Ok(settings)
}

/// The weight for whichever of the two schedulers there is; they count differently.
fn weight_v2(weight: u16) -> Result<Vec<Setting>> {
    if !(10..=1000).contains(&weight) {
        return Err(Error::Unsupported {
            field: "linux.resources.blockIO.weight".to_owned(),
            reason: format!("{weight} is not between 10 and 1000"),
        });
    }
    let io_weight = 1 + (u64::from(weight) - 10) * 9999 / 990;
    let bfq = Setting::new("blockIO.weight", "io.bfq.weight", weight);
    let other = Setting::new("blockIO.weight", "io.weight", io_weight);
    Ok(vec![Setting { otherwise: Some(Box::new(other)), ..bfq }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder};

    fn with(change: impl FnOnce(&mut LinuxBlockIo)) -> LinuxResources {
        let mut io = LinuxBlockIo::default();
        change(&mut io);
        let mut resources = LinuxResources::default();
        resources.set_block_io(Some(io));
        resources
    }

    #[test]
    fn weights() {
        for (weight, io_weight) in [(10, "1"), (100, "910"), (500, "4950"), (1000, "10000")] {
            let resources = with(|io| {
                io.set_weight(Some(weight));
            });
            let settings = plan_v2(&resources).unwrap();
            assert_eq!(settings[0].files, ["io.bfq.weight"]);
            assert_eq!(settings[0].value, weight.to_string());
            let other = settings[0].otherwise.as_ref().unwrap();
            assert_eq!((other.files[0].as_str(), other.value.as_str()), ("io.weight", io_weight));
            let settings = plan_v1(&resources).unwrap();
            assert_eq!(settings[0].files, ["blkio.weight", "blkio.bfq.weight"]);
        }
        for weight in [9, 1001] {
            let resources = with(|io| {
                io.set_weight(Some(weight));
            });
            assert!(plan_v2(&resources).is_err());
        }
        let unset = with(|io| {
            io.set_weight(Some(0));
        });
        assert!(plan_v2(&unset).unwrap().is_empty() && plan_v1(&unset).unwrap().is_empty());
    }

    #[test]
    fn devices() {
        let throttle = |rate: u64| {
            let device = LinuxThrottleDeviceBuilder::default().major(8).minor(16).rate(rate);
            Some(vec![device.build().unwrap()])
        };
        let weight =
            LinuxWeightDeviceBuilder::default().major(8).minor(0).weight(300_u16).build().unwrap();
        let resources = with(|io| {
            io.set_throttle_read_bps_device(throttle(1024));
            io.set_throttle_write_iops_device(throttle(0));
            io.set_weight_device(Some(vec![weight]));
        });
        let texts = |settings: Vec<Setting>| -> Vec<String> {
            settings.iter().map(|s| format!("{} {}", s.files[0], s.value)).collect()
        };
        let v1 = [
            "blkio.weight_device 8:0 300",
            "blkio.throttle.read_bps_device 8:16 1024",
            "blkio.throttle.write_iops_device 8:16 0",
        ];
        assert_eq!(texts(plan_v1(&resources).unwrap()), v1);
        let v2 = ["io.bfq.weight 8:0 300", "io.max 8:16 rbps=1024", "io.max 8:16 wiops=max"];
        assert_eq!(texts(plan_v2(&resources).unwrap()), v2);
        let leaf = with(|io| {
            io.set_leaf_weight(Some(10));
        });
        assert!(plan_v2(&leaf).is_err());
    }
}
