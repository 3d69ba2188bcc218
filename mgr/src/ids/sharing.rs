//! Who may have ids that another container has (pure).
//!
//! Ranges of ours are exclusive, and what an engine gives is honoured. So of two containers that have
//! an id in common
//!
//! | the one that was first | the new one | |
//! |---|---|---|
//! | is in some user namespace | joins the same one | they are one pod |
//! | got its mappings from the engine | gets exactly the same | the engine wants it (Docker's `userns-remap`) |
//! | anything else | | refused: neither of the two was told that it shares |

use super::IdMapping;
use super::mapping::host_ranges;
use crate::error::{Error, Result};

/// A container, as far as its ids are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The engine's id of it.
    pub id: &'a str,
    /// User ids.
    pub uids: &'a [IdMapping],
    /// Group ids.
    pub gids: &'a [IdMapping],
    /// The engine gave them.
    pub given: bool,
    /// Inode number of its user namespace; 0 if it is not made yet.
    pub userns: u64,
}

/// How a container that may be there shares its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing<'a> {
    /// With nobody.
    Alone,
    /// With those of its pod; `given` as in [`Holder`] of the others.
    Pod {
        /// Where the pod's ids come from.
        given: bool,
    },
    /// With this container, because the engine gave both the same.
    Engine(&'a str),
}

/// Whether `new` may have its ids beside the `others`.
pub fn check<'a>(new: Holder<'_>, others: impl Iterator<Item = Holder<'a>>) -> Result<Sharing<'a>> {
    let mut sharing = Sharing::Alone;
    for other in others {
        let Some((wanted, taken)) = overlap(new, other) else { continue };
        let same = new.uids == other.uids && new.gids == other.gids;
        if same && new.userns != 0 && new.userns == other.userns {
            sharing = Sharing::Pod { given: other.given };
        } else if same && new.given && other.given {
            if sharing == Sharing::Alone {
                sharing = Sharing::Engine(other.id);
            }
        } else {
            let (id, other) = (new.id, other.id);
            return Err(Error::new(format!(
                "the mappings of container {id} have host ids {wanted}, but container {other} has {taken}: they could reach each other"
            ))
            .remedy("give each container a range of its own, or leave the mappings out"));
        }
    }
    Ok(sharing)
}

/// A range of each that have an id in common. Users and groups count together: a range of ours is
/// both.
fn overlap(new: Holder<'_>, other: Holder<'_>) -> Option<(super::IdRange, super::IdRange)> {
    let ranges =
        |h: Holder<'_>| -> Vec<_> { host_ranges(h.uids).chain(host_ranges(h.gids)).collect() };
    let others = ranges(other);
    ranges(new).into_iter().find_map(|wanted| {
        others.iter().find(|taken| taken.overlaps(wanted)).map(|taken| (wanted, *taken))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &[IdMapping] = &[IdMapping { inside: 0, outside: 100_000, count: 65536 }];
    const B: &[IdMapping] = &[IdMapping { inside: 0, outside: 165_535, count: 65536 }];
    const C: &[IdMapping] = &[IdMapping { inside: 0, outside: 300_000, count: 65536 }];

    fn holder(
        id: &'static str,
        map: &'static [IdMapping],
        given: bool,
        userns: u64,
    ) -> Holder<'static> {
        Holder { id, uids: map, gids: map, given, userns }
    }

    #[test]
    fn the_table_above() {
        let first = |given, userns| std::iter::once(holder("first", A, given, userns));
        let with = |new, given, userns| check(new, first(given, userns)).map_err(|e| e.message);
        assert_eq!(with(holder("new", C, true, 0), false, 7), Ok(Sharing::Alone));
        assert_eq!(with(holder("new", A, true, 7), false, 7), Ok(Sharing::Pod { given: false }));
        assert_eq!(with(holder("new", A, true, 8), true, 7), Ok(Sharing::Engine("first")));
        for refused in [
            with(holder("new", A, true, 0), false, 0),
            with(holder("new", A, true, 8), false, 7),
            with(holder("new", A, false, 0), true, 7),
            with(holder("new", B, true, 0), true, 7),
        ] {
            let message = refused.unwrap_err();
            assert!(message.contains("container first has 100000-165535"), "{message}");
        }
    }

    #[test]
    fn groups_count_as_well() {
        let new = Holder { id: "new", uids: C, gids: B, given: true, userns: 0 };
        assert!(check(new, std::iter::once(holder("first", A, true, 7))).is_err());
    }
}
