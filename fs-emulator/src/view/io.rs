//! Block devices that a container used.

use std::collections::BTreeMap;

use super::View;

/// What a container did on one device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // bytes and operations, read, written and discarded
pub struct DeviceIo {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub discard_bytes: u64,
    pub reads: u64,
    pub writes: u64,
    pub discards: u64,
}

/// Major and minor number of a device.
pub type Device = (u32, u32);

impl View<'_> {
    /// The devices that the container used (all of it: a disk is no limit of the reader's).
    pub fn io(&self) -> BTreeMap<Device, DeviceIo> {
        let levels = self.levels("blkio");
        let Some(own) = levels.list.first() else {
            return BTreeMap::new();
        };
        if levels.v2 {
            return parse_v2(&own.text("io.stat").unwrap_or_default());
        }
        let text = |file: &str| own.text(file).unwrap_or_default();
        parse_v1(
            &text("blkio.throttle.io_service_bytes_recursive"),
            &text("blkio.throttle.io_serviced_recursive"),
        )
    }
}

/// Parses `io.stat`: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
fn parse_v2(text: &str) -> BTreeMap<Device, DeviceIo> {
    let mut devices = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(device) = words.next().and_then(parse_device) else {
            continue;
        };
        let mut io = DeviceIo::default();
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let field = match key {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.write_bytes,
                "dbytes" => &mut io.discard_bytes,
                "rios" => &mut io.reads,
                "wios" => &mut io.writes,
                "dios" => &mut io.discards,
                _ => continue,
            };
            *field = value.parse().unwrap_or(0);
        }
        if io != DeviceIo::default() {
            devices.insert(device, io);
        }
    }
    devices
}

/// Parses the two files of v1, with lines "8:0 Read 1".
fn parse_v1(bytes: &str, operations: &str) -> BTreeMap<Device, DeviceIo> {
    let mut devices = BTreeMap::<_, DeviceIo>::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let Some(device) = words.next().and_then(parse_device) else {
                continue;
            };
            let (Some(kind), Some(Ok(value))) = (words.next(), words.next().map(str::parse::<u64>))
            else {
                continue;
            };
            let io = devices.entry(device).or_default();
            let field = match (kind, is_bytes) {
                ("Read", true) => &mut io.read_bytes,
                ("Write", true) => &mut io.write_bytes,
                ("Discard", true) => &mut io.discard_bytes,
                ("Read", false) => &mut io.reads,
                ("Write", false) => &mut io.writes,
                ("Discard", false) => &mut io.discards,
                _ => continue,
            };
            *field = value;
        }
    }
    devices.retain(|_, io| *io != DeviceIo::default());
    devices
}

fn parse_device(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_and_v2_tell_the_same() {
        let expected = DeviceIo {
            read_bytes: 1024,
            write_bytes: 2048,
            reads: 3,
            writes: 4,
            ..DeviceIo::default()
        };
        let v2 = parse_v2("8:16 rbytes=1024 wbytes=2048 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n");
        let v1 = parse_v1(
            "8:16 Read 1024\n8:16 Write 2048\n8:16 Total 3072\nTotal 3072\n7:0 Read 0\n",
            "8:16 Read 3\n8:16 Write 4\nTotal 7\n",
        );
        assert_eq!(v2, BTreeMap::from([((8, 16), expected)]));
        assert_eq!(v1, v2);
    }
}
