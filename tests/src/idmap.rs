//! Which host IDs a container uses.

/// A range of host IDs that stand for the container's IDs from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The host's ID of container root.
    pub start: u32,
    /// How many IDs the container has.
    pub size: u32,
}

impl IdRange {
    /// Whether an ID of the host belongs to both.
    pub fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.start) + u64::from(range.size);
        u64::from(self.start) < end(other) && u64::from(other.start) < end(self)
    }
}

/// The only line of `/proc/PID/uid_map` (or `gid_map`), which must map the IDs from 0 on.
#[track_caller]
pub fn id_range(pid: u32, map: &str) -> IdRange {
    let path = format!("/proc/{pid}/{map}");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    parse(&text).unwrap_or_else(|| panic!("{path} should hold one range from 0 on:\n{text}"))
}

fn parse(text: &str) -> Option<IdRange> {
    let fields: Vec<u32> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    match fields[..] {
        [0, start, size] => Some(IdRange { start, size }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let first = IdRange { start: 100_000, size: 65536 };
        let next = IdRange { start: 165_536, size: 65536 };
        assert!(!first.overlaps(next) && !next.overlaps(first));
        assert!(first.overlaps(IdRange { start: 165_535, size: 1 }));
    }

    #[test]
    fn only_one_range_from_zero_is_accepted() {
        let range = parse("         0     231072      65536\n");
        assert_eq!(range, Some(IdRange { start: 231_072, size: 65536 }));
        assert_eq!(parse("1 2 3\n"), None);
        assert_eq!(parse("0 2 3\n3 8 9\n"), None);
        assert_eq!(parse(""), None);
    }
}
