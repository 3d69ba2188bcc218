//! Calls that the installed libseccomp may be too old to know.
//!
//! Since Linux 5.1 a new call has the same number on every architecture, so a short table is
//! enough to honour a profile that names them; libseccomp would have to leave them out.

/// Name and number, as in the kernel's `scripts/syscall.tbl`.
const NEWER: &[(&str, u32)] = &[
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// The lowest number in the table.
pub(crate) const FIRST: u32 = 451;

/// Number of `name`, if it is in the table.
pub(crate) fn number(name: &str) -> Option<u32> {
    NEWER.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dense_from_its_first_number() {
        for ((name, number), expected) in NEWER.iter().zip(FIRST..) {
            assert_eq!(*number, expected, "{name}");
        }
    }
}
