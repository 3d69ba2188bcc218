//! The decisions, by table and by properties.

use proptest::prelude::*;
use sysbox_kernel::notify::Notification;

use super::super::request::{Request, decode};
use super::*;

fn ns(inode: u64) -> NamespaceId {
    NamespaceId { device: 4, inode }
}

const CONTAINER: u64 = 100;
const ROOT: u32 = 231_072;

/// `inodes` from the inside out; each namespace is made by the user `owner`.
fn lineage(inodes: &[u64], owner: u32) -> Option<Lineage> {
    let namespaces = inodes.iter().map(|&inode| UserNamespace { id: ns(inode), owner }).collect();
    Lineage::new(namespaces, ns(CONTAINER))
}

fn who(inode: u64, euid: u32, effective: u64) -> Credentials {
    Credentials { userns: ns(inode), euid, effective }
}

#[test]
fn file_system_types() {
    assert_eq!(new_mount(b"proc"), Some(NewMount::Proc));
    assert_eq!(new_mount(b"sysfs"), Some(NewMount::Sysfs));
    assert_eq!(new_mount(b"tracefs"), Some(NewMount::Empty));
    for native in ["tmpfs", "overlay", "cgroup2", "mqueue", "devpts", "fuse", "nfs", "proc2", ""] {
        assert_eq!(new_mount(native.as_bytes()), None, "{native}");
    }
}

#[test]
fn flags_are_taken_apart_as_the_kernel_does_and_the_old_magic_number_is_stripped() {
    let new = |flags| Some(MountAction::New { flags });
    assert_eq!(mount_action(0), new(0));
    assert_eq!(mount_action(0xe), new(0xe));
    assert_eq!(mount_action(0xc0ed_000e), new(0xe));
    for change in [0x1000, 0x2000, 1 << 17, 1 << 18, 1 << 19, 1 << 20] {
        assert_eq!(mount_action(change | 0xe), None, "{change:x}");
        // A remount whatever else is said.
        let remount = Some(MountAction::Remount { read_only: false });
        assert_eq!(mount_action(change | 0x2e), remount, "{change:x}");
    }
    assert_eq!(mount_action(0xc0ed_0021), Some(MountAction::Remount { read_only: true }));
}

#[test]
fn devices() {
    assert_eq!(device(0o020_666, 0x103), Some((1, 3)));
    assert_eq!(device(0o020_666, (10 << 8) | 229), Some((10, 229)));
    for (mode, number) in [
        (0o060_666, 0x103),       // a block device
        (0o100_666, 0x103),       // a file
        (0o020_666, 0),           // a whiteout: native
        (0o020_666, 0x400),       // the first terminal
        (0o020_666, 0x102),       // kmem
        (0o020_666, 0x0010_0103), // minor 259: more than the low byte counts
        (0o020_666, 0x8010_0103),
    ] {
        assert_eq!(device(mode, number), None, "{mode:o} {number:x}");
    }
}

#[test]
fn capabilities_count_in_their_own_namespace_and_those_that_its_user_made() {
    let admin = capability::SYS_ADMIN;
    let own = lineage(&[CONTAINER], 0).unwrap();
    let nested = lineage(&[7, CONTAINER], ROOT + 1000).unwrap();
    let deep = lineage(&[8, 7, CONTAINER], ROOT + 1000).unwrap();
    for (credentials, over, expected, why) in [
        (who(CONTAINER, ROOT, admin), &own, true, "container root"),
        (who(CONTAINER, ROOT, !admin), &own, false, "all but the capability"),
        (who(CONTAINER, ROOT, admin), &nested, true, "from above"),
        (who(CONTAINER, ROOT, 0), &nested, false, "from above, without"),
        (who(CONTAINER, ROOT + 1000, 0), &nested, true, "the maker, without"),
        (who(CONTAINER, ROOT + 1000, 0), &deep, true, "the maker of one in between"),
        (who(7, ROOT + 1000, admin), &nested, true, "nested root in its own"),
        (who(7, ROOT + 1000, admin), &deep, true, "nested root, deeper"),
        (who(7, ROOT + 1000, admin), &own, false, "nested root, outwards"),
        (who(9, ROOT + 1000, u64::MAX), &nested, false, "a sibling"),
        (who(1, 0, u64::MAX), &nested, false, "one outside of the container"),
    ] {
        assert_eq!(is_capable(credentials, over, admin), expected, "{why}");
    }
}

#[test]
fn what_does_not_belong_to_the_container_has_no_lineage() {
    assert_eq!(lineage(&[], 0), None);
    assert_eq!(lineage(&[7], 0), None);
    assert_eq!(lineage(&[CONTAINER, 7], 0), None);
}

#[test]
fn proc_needs_the_right_over_the_namespace_that_it_shows() {
    let facts = |shown| Facts {
        credentials: who(7, ROOT, u64::MAX),
        mount: lineage(&[7, CONTAINER], ROOT),
        shown,
        container: ns(CONTAINER),
    };
    let nested = facts(lineage(&[7, CONTAINER], ROOT));
    let above = facts(lineage(&[CONTAINER], 0));
    let outside = facts(None);
    for kind in [NewMount::Proc, NewMount::Sysfs] {
        assert!(may_mount_new(kind, &nested));
        assert!(!may_mount_new(kind, &above));
        assert!(!may_mount_new(kind, &outside));
    }
    assert!(may_mount_new(NewMount::Empty, &outside));
}

#[test]
fn the_sysfs_of_a_network_that_was_given_is_for_the_container_itself() {
    let facts = |userns, effective| Facts {
        credentials: who(userns, ROOT, effective),
        mount: lineage(&[CONTAINER], 0),
        shown: None,
        container: ns(CONTAINER),
    };
    let root = facts(CONTAINER, capability::SYS_ADMIN);
    assert!(may_mount_new(NewMount::Sysfs, &root));
    assert!(!may_mount_new(NewMount::Proc, &root), "nobody is given a pid namespace");
    assert!(!may_mount_new(NewMount::Sysfs, &facts(CONTAINER, !capability::SYS_ADMIN)));
    let nested = Facts { mount: lineage(&[7, CONTAINER], ROOT), ..facts(7, u64::MAX) };
    assert!(!may_mount_new(NewMount::Sysfs, &nested), "it has rights over no network");
}

proptest! {
    /// Without any capability, only the maker of a namespace in the lineage may do anything.
    #[test]
    fn no_capability_no_right(
        userns in 0_u64..12,
        euid in 0_u32..4,
        path in proptest::collection::vec((0_u64..12, 0_u32..4), 0..5),
    ) {
        let mut namespaces: Vec<UserNamespace> = path
            .iter()
            .map(|&(inode, owner)| UserNamespace { id: ns(inode), owner })
            .collect();
        namespaces.push(UserNamespace { id: ns(CONTAINER), owner: 9 });
        let over = Lineage::new(namespaces.clone(), ns(CONTAINER)).unwrap();
        let credentials = Credentials { userns: ns(userns), euid, effective: 0 };
        if is_capable(credentials, &over, u64::MAX) {
            prop_assert!(namespaces.iter().any(|n| n.owner == euid));
            prop_assert!(namespaces.iter().any(|n| n.id == ns(userns)));
        }
    }

    /// No credentials of a namespace that is not in the lineage have a right.
    #[test]
    fn strangers_have_no_right(userns in 200_u64..300, euid: u32, effective: u64) {
        let over = lineage(&[8, 7, CONTAINER], euid).unwrap();
        let credentials = Credentials { userns: ns(userns), euid, effective };
        prop_assert!(!is_capable(credentials, &over, u64::MAX));
    }

    /// Whatever the registers hold, nothing but the listed devices is made.
    #[test]
    fn only_listed_devices(mode: u32, number: u32) {
        if let Some((major, minor)) = device(mode, number) {
            prop_assert_eq!(mode & 0o170_000, 0o020_000);
            prop_assert!(DEVICES.contains(&(major, minor)));
        }
    }

    /// What the broker takes for a new mount never carries a flag that changes another.
    #[test]
    fn flags_that_pass_make_a_new_mount(flags: u64) {
        if let Some(MountAction::New { flags }) = mount_action(flags) {
            prop_assert_eq!(flags & 0x001e_3020, 0);
        }
    }
}

/// What becomes of a request before anything of the caller is looked at but the name of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Continues,
    Refused,
    Makes(NewMount),
    Remounts,
    Unmounts,
    MakesNode,
    Tells,
}

fn aim(notification: &Notification, name: &[u8]) -> Aim {
    match decode(notification) {
        None => Aim::Continues,
        Some(Request::Mount(mount)) => match (mount_action(mount.flags), new_mount(name)) {
            (Some(MountAction::New { .. }), Some(kind)) => Aim::Makes(kind),
            (Some(MountAction::Remount { .. }), _) => Aim::Remounts,
            _ => Aim::Continues,
        },
        Some(Request::Umount { flags, .. }) if is_plain_umount(flags) => Aim::Unmounts,
        Some(Request::Umount { .. }) => Aim::Continues,
        Some(Request::Fsopen { .. }) if new_mount(name).is_some() => Aim::Refused,
        Some(Request::Fsopen { .. }) => Aim::Continues,
        Some(Request::Mknod { mode, device: number, .. }) => match device(mode, number) {
            Some(_) => Aim::MakesNode,
            None => Aim::Continues,
        },
        Some(Request::Sysinfo { .. }) => Aim::Tells,
    }
}

const X86_64: u32 = 0xc000_003e;
const CWD: u64 = 0xffff_ffff_ffff_ff9c;

/// Calls as programs were seen to make them (strace), with the name of the file system where the call
/// has one, and what the broker makes of them. Addresses are any.
const RECORDED: [(&str, u32, [u64; 6], &str, Aim); 21] = [
    ("runc, proc", 165, [7, 8, 9, 0xe, 0, 0], "proc", Aim::Makes(NewMount::Proc)),
    ("crun, sysfs", 165, [7, 8, 9, 0xf, 0, 0], "sysfs", Aim::Makes(NewMount::Sysfs)),
    ("bwrap, proc", 165, [7, 8, 9, 0xe, 0, 0], "proc", Aim::Makes(NewMount::Proc)),
    ("systemd, debugfs", 165, [7, 8, 9, 0xe, 0, 0], "debugfs", Aim::Makes(NewMount::Empty)),
    ("runc, tmpfs", 165, [7, 8, 9, 0x100_0002, 5, 0], "tmpfs", Aim::Continues),
    ("dockerd, overlay", 165, [7, 8, 9, 0, 5, 0], "overlay", Aim::Continues),
    ("runc, a bind mount", 165, [7, 8, 9, 0x5000, 0, 0], "bind", Aim::Continues),
    ("runc, a read-only path", 165, [7, 8, 9, 0x1021, 0, 0], "", Aim::Remounts),
    ("runc, rslave", 165, [7, 8, 0, 0x8_4000, 0, 0], "", Aim::Continues),
    ("switch_root, move", 165, [7, 8, 0, 0x2000, 0, 0], "", Aim::Continues),
    ("busybox, mount -o remount", 165, [7, 8, 9, 0xc0ed_0020, 0, 0], "proc", Aim::Remounts),
    ("umount", 166, [8, 0, 0, 0, 0, 0], "", Aim::Unmounts),
    ("fuse-overlayfs, umount", 166, [8, 8, 0, 0, 0, 0], "", Aim::Unmounts),
    ("runc, umount -l", 166, [8, 2, 0, 0, 0, 0], "", Aim::Continues),
    ("util-linux, proc", 430, [9, 1, 0, 0, 0, 0], "proc", Aim::Refused),
    ("podman, overlay", 430, [9, 1, 0, 0, 0, 0], "overlay", Aim::Continues),
    ("mmdebstrap, null", 259, [CWD, 8, 0o20666, 0x103, 0, 0], "", Aim::MakesNode),
    ("mmdebstrap, console", 259, [CWD, 8, 0o20600, 0x501, 0, 0], "", Aim::MakesNode),
    ("dockerd, a whiteout", 259, [5, 8, 0o20000, 0, 0, 0], "", Aim::Continues),
    ("mknod, a loop device", 133, [8, 0o60660, 0x700, 0, 0, 0], "", Aim::Continues),
    ("free", 99, [8, 0, 0, 0, 0, 0], "", Aim::Tells),
];

fn notification(arch: u32, nr: u32, args: [u64; 6]) -> Notification {
    Notification { id: 1, tid: 1, arch, nr, args }
}

#[test]
fn recorded_requests() {
    for (what, nr, args, name, expected) in RECORDED {
        assert_eq!(aim(&notification(X86_64, nr, args), name.as_bytes()), expected, "{what}");
    }
}

proptest! {
    /// Recorded requests with some bits of their registers changed: what is done beyond letting the
    /// call continue stays within what its number, its flags and the name of the file system allow.
    #[test]
    fn recorded_requests_with_changes(
        which in 0_usize..RECORDED.len(),
        changes in proptest::collection::vec((0_usize..6, 0_u32..64), 0..4),
        arch in prop_oneof![4 => Just(X86_64), 1 => Just(0x4000_0003_u32), 1 => any::<u32>()],
        name in prop_oneof!["proc", "sysfs", "tmpfs", "[a-z]{0,8}"],
    ) {
        let (_, nr, mut args, _, _) = RECORDED[which];
        for (index, bit) in changes {
            args[index] ^= 1 << bit;
        }
        let seen = aim(&notification(arch, nr, args), name.as_bytes());
        match seen {
            Aim::Continues | Aim::Tells => {}
            Aim::Makes(kind) => {
                prop_assert_eq!(new_mount(name.as_bytes()), Some(kind));
                let magic = args[3] & 0xffff_0000 == 0xc0ed_0000;
                let flags = if magic { args[3] & !0xffff_0000 } else { args[3] };
                prop_assert_eq!(flags & 0x001e_3020, 0);
            }
            Aim::Remounts => prop_assert_ne!(args[3] & 0x20, 0),
            Aim::Refused => prop_assert!(new_mount(name.as_bytes()).is_some()),
            Aim::Unmounts => prop_assert_eq!(args[1] as u32 & 6, 0, "neither detach nor expire"),
            Aim::MakesNode => {
                let (mode, number) = if nr == 133 { (args[1], args[2]) } else { (args[2], args[3]) };
                prop_assert_eq!(mode as u32 & 0o170_000, 0o020_000);
                prop_assert!(device(mode as u32, number as u32).is_some());
            }
        }
    }
}
