//! The files of `/proc/TID` that say who a task is: `status`, `uid_map`, `gid_map`.

use std::io;
use std::str::FromStr;

/// What `/proc/TID/status` says. All ids are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Process (thread group) id, in the manager's pid namespace.
    pub tgid: i32,
    /// Thread id in the innermost pid namespace: the one that the caller knows.
    pub own_tid: u32,
    /// Process id in the innermost pid namespace.
    pub own_tgid: u32,
    /// Effective user id.
    pub euid: u32,
    /// User id for access to files.
    pub fsuid: u32,
    /// Group id for access to files.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities.
    pub effective: u64,
    /// File mode creation mask.
    pub umask: u32,
}

impl Status {
    /// Reads the file. Lines that are not needed are skipped; a needed one that is missing or odd
    /// is an error.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| bad("text"))?;
        let mut status = Self::default();
        let mut seen = 0;
        // A task's name comes first and has its line breaks escaped by the kernel.
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            seen += 1;
            match key {
                "Umask" => {
                    status.umask = u32::from_str_radix(value.trim(), 8).map_err(|_| bad(key))?;
                }
                "Tgid" => status.tgid = nth(value, 0).ok_or_else(|| bad(key))?,
                "Uid" => {
                    status.euid = nth(value, 1).ok_or_else(|| bad(key))?;
                    status.fsuid = nth(value, 3).ok_or_else(|| bad(key))?;
                }
                "Gid" => status.fsgid = nth(value, 3).ok_or_else(|| bad(key))?,
                "Groups" => status.groups = numbers(value).ok_or_else(|| bad(key))?,
                "NStgid" => status.own_tgid = last(value).ok_or_else(|| bad(key))?,
                "NSpid" => status.own_tid = last(value).ok_or_else(|| bad(key))?,
                "CapEff" => {
                    let value = u64::from_str_radix(value.trim(), 16);
                    status.effective = value.map_err(|_| bad(key))?;
                }
                _ => seen -= 1,
            }
        }
        if seen == 8 { Ok(status) } else { Err(bad("lines")) }
    }
}

fn nth<T: FromStr>(value: &str, n: usize) -> Option<T> {
    value.split_ascii_whitespace().nth(n)?.parse().ok()
}

fn last(value: &str) -> Option<u32> {
    value.split_ascii_whitespace().next_back()?.parse().ok()
}

fn numbers(value: &str) -> Option<Vec<u32>> {
    value.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

fn bad(what: &str) -> io::Error {
    let what = format!("unexpected {what} in /proc/TID/status");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// (first id inside, first id outside, count) of each line of a `uid_map` or `gid_map`.
fn map(text: &[u8]) -> impl Iterator<Item = (u32, u32, u32)> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.lines().filter_map(|line| Some((nth(line, 0)?, nth(line, 1)?, nth(line, 2)?)))
}

/// The id outside for an id inside.
pub fn host_id(id_map: &[u8], id: u32) -> Option<u32> {
    map(id_map).find_map(|(inside, outside, count)| {
        let offset = id.checked_sub(inside)?;
        (offset < count).then(|| outside.checked_add(offset))?
    })
}

/// Whether an id outside has one inside.
pub fn is_mapped(id_map: &[u8], host_id: u32) -> bool {
    map(id_map).any(|(_, outside, count)| {
        host_id.checked_sub(outside).is_some_and(|offset| offset < count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\tmount\\nUid:\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4242\n\
        Ngid:\t0\nPid:\t4243\nPPid:\t1\nUid:\t1\t2\t3\t231072\nGid:\t5\t6\t7\t231073\n\
        FDSize:\t64\nGroups:\t4 231072 \nNStgid:\t4242\t17\nNSpid:\t4243\t18\n\
        CapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\nSeccomp:\t2\n";

    #[test]
    fn status_is_read() {
        let status = Status::parse(TEXT.as_bytes()).unwrap();
        let expected = Status {
            tgid: 4242,
            own_tid: 18,
            own_tgid: 17,
            euid: 2,
            fsuid: 231_072,
            fsgid: 231_073,
            groups: vec![4, 231_072],
            effective: 0x1ff_ffff_ffff,
            umask: 0o22,
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn a_status_without_a_needed_line_is_refused() {
        let text = TEXT.replace("CapEff", "CapEfg");
        assert!(Status::parse(text.as_bytes()).is_err());
        assert!(Status::parse(b"").is_err());
        assert!(Status::parse(b"Uid:\t1\n").is_err());
    }

    #[test]
    fn ids_are_translated_by_every_line_of_the_map() {
        let map = b"         0     231072       1000\n      1000       5000          1\n";
        assert_eq!(host_id(map, 0), Some(231_072));
        assert_eq!(host_id(map, 999), Some(232_071));
        assert_eq!(host_id(map, 1000), Some(5000));
        assert_eq!(host_id(map, 1001), None);
        assert!(is_mapped(map, 5000) && is_mapped(map, 231_072));
        assert!(!is_mapped(map, 0) && !is_mapped(map, 232_072));
    }
}
