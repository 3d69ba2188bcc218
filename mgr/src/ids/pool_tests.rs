//! Tests of the pool: examples, and a model of containers that come and go in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::mapping::{IdMapping, host_ranges};
use crate::ids::sharing::{Holder, Sharing, check};
use crate::ids::subid;

fn pool(uids: &str, gids: &str) -> Pool {
    Pool::new(&subid::parse(uids), &subid::parse(gids), |owner| owner == "sysbox")
}

fn range(start: u32, count: u32) -> IdRange {
    IdRange::new(start, count).unwrap()
}

#[test]
fn only_ids_that_both_files_give_us_are_in_the_pool() {
    let pool = pool("sysbox:100000:200000\nu:1:5\n", "sysbox:150000:200000\n");
    assert_eq!(pool.ranges(), [range(150_000, 150_000)]);
}

#[test]
fn entries_of_others_and_id_0_are_cut_out() {
    let pool = pool("sysbox:0:1000000\nme:200000:65536\n", "sysbox:0:1000000\nyou:500000:1\n");
    assert_eq!(
        pool.ranges(),
        [range(1, 199_999), range(265_536, 234_464), range(500_001, 499_999)]
    );
}

#[test]
fn several_entries_may_overlap_each_other() {
    let text = "sysbox:100000:65536\nsysbox:120000:65536\n";
    let pool = pool(text, text);
    let ids: u64 = pool.ranges().iter().map(|r| u64::from(r.count())).sum();
    assert_eq!(ids, 20_000 + 65_536);
}

#[test]
fn ranges_rest_before_they_are_given_again() {
    let text = "sysbox:231072:262144\n";
    let pool = pool(text, text);
    let first = pool.allocate(&[], 1, 0).unwrap();
    let second = pool.allocate(&[], 1, first.end()).unwrap();
    assert_eq!((first, second), (range(231_072, SLOT), range(231_072 + SLOT, SLOT)));
    // Round the end of the pool to its beginning.
    let last = pool.allocate(&[], 3 * SLOT, 231_072 + 3 * u64::from(SLOT)).unwrap();
    assert_eq!(last.start(), 231_072);
}

#[test]
fn exhaustion_tells_the_numbers() {
    let text = "sysbox:231072:131072\n";
    let pool = pool(text, text);
    let used = [range(231_072, SLOT), range(231_072 + SLOT, SLOT), range(5, 5)];
    let error = pool.allocate(&used, 0, 0).unwrap_err();
    assert_eq!(error, Exhausted { wanted: 0, total: 2, in_use: 2 });
    assert_eq!(pool.allocate(&[], u32::MAX, 0).unwrap_err().total, 0);
}

/// What happens to the containers of a host.
#[derive(Clone, Debug)]
enum Op {
    /// A container starts and wants this many ids.
    Create(u32),
    /// One starts with a mapping of its engine's.
    Given(IdMapping),
    /// One joins the user namespace of another.
    Join(prop::sample::Index),
    /// One of the containers is deleted (or its creation rolled back after a crash).
    Delete(prop::sample::Index),
    /// The manager dies and comes back: it knows only the records, and no place to go on from.
    Restart,
}

/// A container of the model.
#[derive(Clone, Debug)]
struct Container {
    map: Vec<IdMapping>,
    given: bool,
    userns: u64,
}

impl Container {
    fn holder(&self) -> Holder<'_> {
        let (uids, gids) = (&self.map[..], &self.map[..]);
        Holder { id: "", uids, gids, given: self.given, userns: self.userns }
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop_oneof![Just(0), Just(SLOT), 1..(5 * SLOT)].prop_map(Op::Create),
        2 => (0u32..4, 1u32..3).prop_map(|(start, count)| Op::Given(IdMapping {
            inside: 0, outside: 100_000 + start * 40_000, count: count * 40_000,
        })),
        1 => any::<prop::sample::Index>().prop_map(Op::Join),
        2 => any::<prop::sample::Index>().prop_map(Op::Delete),
        1 => Just(Op::Restart),
    ]
}

fn entries() -> impl Strategy<Value = Vec<subid::Entry>> {
    let owner = prop_oneof![3 => Just("sysbox"), 1 => Just("other")];
    let entry = (owner, 0u32..2_000_000, 1u32..1_500_000).prop_map(|(owner, start, count)| {
        subid::Entry { owner: owner.to_owned(), range: range(start, count) }
    });
    prop::collection::vec(entry, 1..5)
}

proptest! {
    #[test]
    fn no_two_live_containers_share_an_id(
        uids in entries(), gids in entries(), ops in prop::collection::vec(op(), 1..60),
    ) {
        let pool = Pool::new(&uids, &gids, |owner| owner == "sysbox");
        let mut live: BTreeMap<usize, Container> = BTreeMap::new();
        let mut after = 0;
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Create(wanted) => {
                    let used: Vec<_> = live.values().flat_map(|c| host_ranges(&c.map)).collect();
                    let Ok(new) = pool.allocate(&used, wanted, after) else { continue };
                    prop_assert!(new.count() >= wanted.max(SLOT) && new.start() > 0);
                    prop_assert!(pool.ranges().iter().any(|r| r.contains(new)));
                    for other in uids.iter().chain(&gids).filter(|e| e.owner != "sysbox") {
                        prop_assert!(!other.range.overlaps(new), "{new} is of another user");
                    }
                    after = new.end();
                    let map = vec![IdMapping::whole(new)];
                    live.insert(n, Container { map, given: false, userns: n as u64 + 1 });
                }
                Op::Given(mapping) => {
                    let new = Container { map: vec![mapping], given: true, userns: 0 };
                    if check(new.holder(), live.values().map(Container::holder)).is_ok() {
                        live.insert(n, Container { userns: n as u64 + 1, ..new });
                    }
                }
                Op::Join(which) if !live.is_empty() => {
                    let keys: Vec<_> = live.keys().copied().collect();
                    let new = Container { given: true, ..live[which.get(&keys)].clone() };
                    let sharing = check(new.holder(), live.values().map(Container::holder));
                    let Ok(Sharing::Pod { given }) = sharing else {
                        panic!("who joins a pod shares with it: {sharing:?}")
                    };
                    live.insert(n, Container { given, ..new });
                }
                Op::Delete(which) if !live.is_empty() => {
                    let key = *which.get(&live.keys().copied().collect::<Vec<_>>());
                    live.remove(&key);
                }
                Op::Delete(_) | Op::Join(_) => {}
                Op::Restart => after = 0,
            }
            for (a, b) in live.iter().flat_map(|(n, a)| live.range(n + 1..).map(move |(_, b)| (a, b))) {
                let ids = |c: &Container| host_ranges(&c.map).next().unwrap();
                let pod = a.userns == b.userns;
                let engine = a.given && b.given && a.map == b.map;
                prop_assert!(!ids(a).overlaps(ids(b)) || pod || engine, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn exhausted_means_that_there_is_really_no_room(
        slots in 1u32..40, taken in prop::collection::btree_set(0u32..40, 0..40), wanted in 1u32..4,
    ) {
        let text = format!("sysbox:231072:{}\n", slots * SLOT);
        let pool = pool(&text, &text);
        let used: Vec<_> = taken.iter().filter(|s| **s < slots)
            .map(|s| range(231_072 + s * SLOT, SLOT)).collect();
        let room = (0..slots).any(|s| {
            s + wanted <= slots && (s..s + wanted).all(|x| !taken.contains(&x))
        });
        prop_assert_eq!(pool.allocate(&used, wanted * SLOT, 231_072 + 5 * u64::from(SLOT)).is_ok(), room);
    }
}
