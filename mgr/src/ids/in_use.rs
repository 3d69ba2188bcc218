//! Ranges that processes of the host use at this moment, read from their user namespaces.
//!
//! The records say which ranges are taken. Should a record be lost (a disk error set it aside), its
//! container may still run; what its processes show in /proc/PID/uid_map keeps the range from being
//! given to a second container.

use std::collections::BTreeSet;
use std::fs;

use super::IdRange;

/// Host ids of every user namespace other than the host's own that has a process in it.
pub fn ranges() -> Vec<IdRange> {
    let mut found = BTreeSet::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        for map in ["uid_map", "gid_map"] {
            if let Ok(text) = fs::read_to_string(process.path().join(map)) {
                found.extend(parse(&text));
            }
        }
    }
    found.into_iter().collect()
}

/// Outside ids of a uid_map. The host's own map (everything to itself) and single ids (rootless
/// engines map their user) are no range of ours.
fn parse(map: &str) -> impl Iterator<Item = IdRange> {
    map.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (_inside, outside, count) =
            (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
        let range = IdRange::new(outside, count)?;
        (range.start() > 0 && range.count() > 1).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_map_is_not_in_use() {
        assert_eq!(parse("         0          0 4294967295\n").count(), 0);
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(parse(map).collect::<Vec<_>>(), [IdRange::new(100_000, 65536).unwrap()]);
    }
}
