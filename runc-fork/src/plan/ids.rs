//! ID mappings of the container, as the manager gave them.

use serde::{Deserialize, Serialize};
use sysbox_ipc::proto::IdMapping;
use sysbox_kernel::ns::IdMap;

/// uid_map and gid_map of the container's user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// uid_map
    #[serde(with = "triples")]
    pub uids: Vec<IdMap>,
    /// gid_map
    #[serde(with = "triples")]
    pub gids: Vec<IdMap>,
}

/// Mappings are kept as `[inside, outside, count]`, the order of uid_map.
mod triples {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use sysbox_kernel::ns::IdMap;

    pub fn serialize<S: Serializer>(maps: &[IdMap], s: S) -> Result<S::Ok, S::Error> {
        maps.iter().map(|m| (m.inside, m.outside, m.count)).collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IdMap>, D::Error> {
        let triples = Vec::<(u32, u32, u32)>::deserialize(d)?;
        let map = |(inside, outside, count)| IdMap { inside, outside, count };
        Ok(triples.into_iter().map(map).collect())
    }
}

impl Ids {
    /// From the manager's answer.
    pub fn new(uids: &[IdMapping], gids: &[IdMapping]) -> Self {
        let convert = |maps: &[IdMapping]| {
            maps.iter()
                .map(|m| IdMap { inside: m.container_id, outside: m.host_id, count: m.size })
                .collect()
        };
        Self { uids: convert(uids), gids: convert(gids) }
    }

    /// The host's id of a user inside; `None` if it is not mapped.
    pub fn host_uid(&self, inside: u32) -> Option<u32> {
        translate(&self.uids, inside)
    }

    /// The host's id of a group inside; `None` if it is not mapped.
    pub fn host_gid(&self, inside: u32) -> Option<u32> {
        translate(&self.gids, inside)
    }

    /// These mappings, whose targets are ids inside of `container`, with the host's ids for them. What
    /// the container has no ids for is left out.
    pub fn within(&self, container: &Self) -> Self {
        Self {
            uids: compose(&self.uids, &container.uids),
            gids: compose(&self.gids, &container.gids),
        }
    }

    /// Whether every id is the same inside and outside, so that no file is to be ID-mapped: the
    /// manager is in a container itself, where the kernel allows no ID-mapped mounts.
    pub fn are_the_same(&self) -> bool {
        self.uids.iter().chain(&self.gids).all(|m| m.inside == m.outside)
    }

    /// Whether a host user id belongs to the container.
    pub fn owns_uid(&self, host: u32) -> bool {
        self.uids.iter().any(|m| host.checked_sub(m.outside).is_some_and(|d| d < m.count))
    }
}

fn compose(first: &[IdMap], second: &[IdMap]) -> Vec<IdMap> {
    let end = |start: u32, count: u32| start.saturating_add(count);
    let overlap = |a: &IdMap, b: &IdMap| {
        let from = a.outside.max(b.inside);
        let to = end(a.outside, a.count).min(end(b.inside, b.count));
        (from < to).then(|| IdMap {
            inside: a.inside + (from - a.outside),
            outside: b.outside + (from - b.inside),
            count: to - from,
        })
    };
    first.iter().flat_map(|a| second.iter().filter_map(move |b| overlap(a, b))).collect()
}

fn translate(maps: &[IdMap], inside: u32) -> Option<u32> {
    maps.iter().find_map(|m| {
        let offset = inside.checked_sub(m.inside)?;
        (offset < m.count).then(|| m.outside.checked_add(offset)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_to_ids_inside_leads_to_those_of_the_host() {
        let map = |inside, outside, count| IdMap { inside, outside, count };
        let ids = |maps: &[IdMap]| Ids { uids: maps.to_vec(), gids: maps.to_vec() };
        let container = ids(&[map(0, 300_000, 1000), map(1000, 500_000, 1000)]);
        let own = ids(&[map(7, 0, 1), map(100, 990, 20), map(5000, 1990, 100)]);
        let expected = [
            map(7, 300_000, 1),
            map(100, 300_990, 10),
            map(110, 500_000, 10),
            map(5000, 500_990, 10),
        ];
        assert_eq!(own.within(&container), ids(&expected));
        assert_eq!(ids(&[map(0, 70_000, 1)]).within(&container), Ids::default());
    }

    #[test]
    fn several_entries() {
        let map = vec![
            IdMap { inside: 0, outside: 1000, count: 1 },
            IdMap { inside: 1, outside: 100_000, count: 10 },
        ];
        let ids = Ids { uids: map.clone(), gids: map };
        assert_eq!(ids.host_uid(0), Some(1000));
        assert_eq!(ids.host_gid(10), Some(100_009));
        assert_eq!(ids.host_uid(11), None);
        assert!(ids.owns_uid(100_000) && !ids.owns_uid(1001));
        assert!(!ids.are_the_same());
        let same = vec![IdMap { inside: 0, outside: 0, count: 65536 }];
        assert!(Ids { uids: same.clone(), gids: same }.are_the_same());
    }
}
