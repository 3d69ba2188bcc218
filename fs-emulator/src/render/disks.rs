//! `/proc/diskstats` and `/proc/partitions`.

use std::fmt::Write;

use crate::view::View;
use crate::view::io::{Device, DeviceIo};

/// Bytes in a sector, the unit of `/proc/diskstats` whatever the device's own sectors are.
const SECTOR: u64 = 512;

/// What the container did on the devices that it used, in the host's order. Times and merges are
/// not counted for cgroups: 0.
pub fn diskstats(view: &View) -> String {
    let io = view.io();
    let host = view.host.text("proc/diskstats");
    let mut text = String::new();
    for ((major, minor), name) in host.lines().filter_map(device) {
        let Some(io) = io.get(&(major, minor)) else {
            continue;
        };
        writeln!(text, "{major:4} {minor:7} {name} {}", numbers(io)).expect("writing to a string");
    }
    text
}

/// The lines of the devices that the container used.
pub fn partitions(view: &View) -> String {
    let io = view.io();
    let mut text = "major minor  #blocks  name\n\n".to_owned();
    for line in view.host.text("proc/partitions").lines() {
        if device(line).is_some_and(|(device, _)| io.contains_key(&device)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Device and third field of a line that begins with major and minor number.
fn device(line: &str) -> Option<(Device, &str)> {
    let mut fields = line.split_whitespace();
    let device = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((device, fields.next()?))
}

/// The fields after the name: reads (done, merged, sectors, ms), writes, in progress, ms, weighted
/// ms, discards, flushes (done, ms).
fn numbers(io: &DeviceIo) -> String {
    format!(
        "{} 0 {} 0 {} 0 {} 0 0 0 0 {} 0 {} 0 0 0",
        io.reads,
        io.read_bytes / SECTOR,
        io.writes,
        io.write_bytes / SECTOR,
        io.discards,
        io.discard_bytes / SECTOR,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_fields_as_the_kernel_prints() {
        let io = DeviceIo { reads: 3, read_bytes: 1024, ..DeviceIo::default() };
        assert_eq!(numbers(&io).split(' ').count(), 17);
        assert_eq!(device(" 254       0 vda 1 2"), Some(((254, 0), "vda")));
        assert_eq!(device("major minor  #blocks  name"), None);
    }
}
