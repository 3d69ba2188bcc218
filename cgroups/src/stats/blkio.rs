//! Block I/O by device and operation.

use std::path::Path;

use serde::Serialize;

use super::read::Pressure;
use crate::cgroup::Cgroup;
use crate::file;

/// Block I/O. The lists that are not among the first two are those of old v1 schedulers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations waiting.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time in the device, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time in the queue, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations that were merged into others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Time given to the container, in milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Waiting for I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// Major number of the device.
    pub major: u64,
    /// Minor number of the device.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where it is not told apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    pub value: u64,
}

pub(super) fn usage(cgroup: &Cgroup) -> Blkio {
    match cgroup.v1_dir("blkio") {
        Some(dir) => v1(dir),
        None => cgroup.unified().map(v2).unwrap_or_default(),
    }
}

/// `io.stat`: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn v2(dir: &Path) -> Blkio {
    let mut blkio = Blkio::default();
    let text = file::read(dir, "io.stat").unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((major, minor)) = fields.next().and_then(device) else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut blkio.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    blkio
}

/// The files of whichever scheduler counts: BFQ, the old CFQ, or the throttle layer.
fn v1(dir: &Path) -> Blkio {
    let first = |names: &[&str]| {
        let lists = names.iter().map(|name| entries(dir, name));
        lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    };
    let bfq_or_cfq = |what: &str| {
        let names = [format!("blkio.bfq.{what}_recursive"), format!("blkio.{what}_recursive")];
        first(&[&names[0], &names[1]])
    };
    Blkio {
        io_service_bytes_recursive: first(&[
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes",
        ]),
        io_serviced_recursive: first(&[
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
            "blkio.throttle.io_serviced",
        ]),
        io_queued_recursive: bfq_or_cfq("io_queued"),
        io_service_time_recursive: bfq_or_cfq("io_service_time"),
        io_wait_time_recursive: bfq_or_cfq("io_wait_time"),
        io_merged_recursive: bfq_or_cfq("io_merged"),
        io_time_recursive: bfq_or_cfq("time"),
        sectors_recursive: bfq_or_cfq("sectors"),
        psi: None,
    }
}

/// Lines `8:0 Read 123` or `8:0 123`; the sum over all devices (`Total 123`) is left out.
fn entries(dir: &Path, name: &str) -> Vec<BlkioEntry> {
    let text = file::read(dir, name).unwrap_or_default();
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (number, op, value) = match fields[..] {
            [number, op, value] => (number, op, value),
            [number, value] => (number, "", value),
            _ => return None,
        };
        let (major, minor) = device(number)?;
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// `8:0`
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::container;
    use super::*;

    #[test]
    fn v2_lines() {
        let dir = tempfile::tempdir().unwrap();
        let stat = "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:0\n";
        let blkio = container(dir.path(), &[], &[("io.stat", stat)]).stats().blkio;
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 16, op: op.to_owned(), value };
        let bytes = [entry("Read", 10), entry("Write", 20), entry("Discard", 0)];
        assert_eq!(blkio.io_service_bytes_recursive, bytes);
        assert_eq!(blkio.io_serviced_recursive[1], entry("Write", 2));
    }

    #[test]
    fn v1_takes_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("blkio/blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
            ("blkio/blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Total 5\nTotal 5\n"),
            ("blkio/blkio.sectors_recursive", "8:0 77\n"),
        ];
        let blkio = container(dir.path(), &files, &[]).stats().blkio;
        assert_eq!(blkio.io_service_bytes_recursive.len(), 2);
        assert_eq!(blkio.io_service_bytes_recursive[0].op, "Read");
        let json = serde_json::to_value(&blkio).unwrap();
        let sectors = serde_json::json!([{"major": 8, "minor": 0, "value": 77}]);
        assert_eq!(json["sectorsRecursive"], sectors);
    }
}
