//! Ids that a new entry must avoid though no other entry names them: those of local accounts, those
//! that processes use (systemd-nspawn takes ranges that stand in no file), and those that do not exist
//! here, when the manager itself is in a container.

use std::fs;

use super::IdRange;

/// passwd(5) and group(5). They are read here and not by getpwnam(3), which in a statically linked
/// program loads the machine's NSS modules, made for another C library: with `passwd: files systemd`
/// that crashes.
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// What no new entry may touch.
pub fn taken() -> Vec<IdRange> {
    let mut taken = unmapped();
    for file in ACCOUNTS {
        taken.extend(accounts(&fs::read_to_string(file).unwrap_or_default()));
    }
    taken.extend(super::in_use::ranges());
    taken
}

/// Ids that this process's user namespace does not have; none on a host.
pub fn unmapped() -> Vec<IdRange> {
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(fs::read_to_string);
    maps.iter().flatten().flat_map(|map| beyond(map)).collect()
}

/// The ids of the container that this manager is in: from 0 on, as many as are both user and group
/// ids. `None` on a host.
pub fn of_outer_container() -> Option<IdRange> {
    if unmapped().is_empty() {
        return None;
    }
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"].map(fs::read_to_string);
    let [users, groups] = maps.map(|map| from_root(&map.unwrap_or_default()));
    users?.intersection(groups?)
}

/// The first entry of a uid_map, which has root.
fn from_root(map: &str) -> Option<IdRange> {
    map.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().filter_map(|f| f.parse().ok());
        let (inside, count) = (fields.next()?, fields.nth(1)?);
        IdRange::new(inside, count).filter(|range| range.start() == 0)
    })
}

/// The user id of `name`, as text.
pub fn uid_of(name: &str) -> Option<String> {
    find(name, &fs::read_to_string(ACCOUNTS[0]).unwrap_or_default()).map(str::to_owned)
}

/// Third field of the line of `name` in a passwd(5).
fn find<'a>(name: &str, users: &'a str) -> Option<&'a str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)).flatten()
    })
}

/// The ids of all lines: the third field of passwd(5) and of group(5).
fn accounts(text: &str) -> impl Iterator<Item = IdRange> {
    text.lines().filter_map(|line| IdRange::new(line.split(':').nth(2)?.parse().ok()?, 1))
}

/// What a uid_map leaves out.
fn beyond(map: &str) -> Vec<IdRange> {
    let mut left: Vec<IdRange> = IdRange::new(0, u32::MAX).into_iter().collect();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace().filter_map(|f| f.parse().ok());
        let (inside, count) = (fields.next(), fields.nth(1));
        if let Some(mapped) = inside.zip(count).and_then(|(i, c)| IdRange::new(i, c)) {
            left = left.into_iter().flat_map(|r| r.without(mapped)).collect();
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, count: u32) -> IdRange {
        IdRange::new(start, count).unwrap()
    }

    #[test]
    fn accounts_are_in_passwd() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\n+nis\nsysboxer:x:5:5::/:\nsysbox:x:999:998::/:\n";
        assert_eq!(find("sysbox", users), Some("999"));
        assert_eq!(find("root", users), Some("0"));
        assert_eq!(find("nobody", users), None);
        assert_eq!(accounts(users).collect::<Vec<_>>(), [range(0, 1), range(5, 1), range(999, 1)]);
    }

    #[test]
    fn a_host_has_all_ids_and_a_container_some() {
        assert_eq!(beyond("         0          0 4294967295\n"), []);
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(beyond(map), [range(65_537, u32::MAX - 65_537)]);
    }
}
