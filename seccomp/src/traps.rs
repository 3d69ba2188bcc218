//! The calls that a system container hands to the mount broker.
//!
//! Each trap costs the caller a round trip, so the test looks at everything that a filter can see
//! (numbers and integer arguments, never memory) to leave alone what the kernel answers well by
//! itself. What the broker does with each is told in `sysbox-mgr`.

use crate::bpf::{Instruction, JEQ_K, JSET_K, RET_USER_NOTIF, arg, unless, when};

/// When a call is trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every time.
    Always,
    /// mount(2) that makes a new mount or remounts one: no bind, move or change of propagation.
    NewMountOrRemount,
    /// umount2(2) without `MNT_DETACH`.
    NotDetach,
    /// mknod(2) of a character or block device; not of a whiteout (character device 0:0), which
    /// the kernel lets anyone make. Numbers: the indices of the mode and device arguments.
    Device {
        /// Index of the argument that holds the mode.
        mode: u8,
        /// Index of the argument that holds the device number.
        device: u8,
    },
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// Name of the call; ABIs that lack it have no trap for it.
    pub name: &'static str,
    /// Which of its uses.
    pub when: When,
    /// Why it can't be left to the kernel.
    pub reason: &'static str,
}

/// The table.
pub const TRAPS: &[Trap] = &[
    Trap {
        name: "mount",
        when: When::NewMountOrRemount,
        reason: "a new proc or sysfs is refused by the kernel while locked files cover parts of \
                 the container's own; the broker makes one that carries them. A remount of it \
                 (read-only, by inner engines) has to include the virtualised files on it",
    },
    Trap {
        name: "umount2",
        when: When::NotDetach,
        reason: "an inner proc or sysfs holds virtualised files on top, so the kernel says EBUSY; \
                 with MNT_DETACH the kernel takes the whole tree by itself",
    },
    Trap {
        name: "umount",
        when: When::Always,
        reason: "the old call of 32-bit programs: umount2 without flags",
    },
    Trap {
        name: "fsopen",
        when: When::Always,
        reason: "callers that make proc or sysfs by the new API are sent to mount(2), which is \
                 served; other file systems go on",
    },
    Trap {
        name: "mknod",
        when: When::Device { mode: 1, device: 2 },
        reason: "devices of a short list (null, zero, fuse, net/tun...) are made for the caller; \
                 the kernel allows none in a user namespace",
    },
    Trap { name: "mknodat", when: When::Device { mode: 2, device: 3 }, reason: "as mknod" },
    Trap {
        name: "sysinfo",
        when: When::Always,
        reason: "it tells the host's memory and load, and of a container's nothing; few programs \
                 call it, and those once (free and uptime of busybox, sysconf(3) for the size of \
                 memory)",
    },
];

const MS_REMOUNT: u32 = 0x20;
const MS_BIND: u32 = 0x1000;
const MS_MOVE: u32 = 0x2000;
const MS_UNBINDABLE: u32 = 1 << 17;
const MS_PRIVATE: u32 = 1 << 18;
const MS_SLAVE: u32 = 1 << 19;
const MS_SHARED: u32 = 1 << 20;
/// Before Linux 2.4 every caller had to put this into the high half of the flags; libc programs
/// still may, and the kernel then ignores that half. It has propagation bits set.
const MS_MGC_VAL: u32 = 0xc0ed_0000;
const MS_MGC_MSK: u32 = 0xffff_0000;
const MNT_DETACH: u32 = 2;
const S_IFMT: u32 = 0o170000;
const S_IFCHR: u32 = 0o020000;
const S_IFBLK: u32 = 0o060000;

impl When {
    /// Instructions that return "notify" if the test holds and otherwise run off their end.
    pub(crate) fn code(self) -> Vec<Instruction> {
        let notify = || vec![Instruction::ret(RET_USER_NOTIF)];
        match self {
            Self::Always => notify(),
            Self::NotDetach => {
                let mut code = vec![Instruction::load(arg(1))];
                code.extend(unless(JSET_K, MNT_DETACH, notify()));
                code
            }
            Self::NewMountOrRemount => new_mount_or_remount(),
            Self::Device { mode, device } => {
                let mut code = vec![Instruction::load(arg(mode)), Instruction::and(S_IFMT)];
                let mut character = vec![Instruction::load(arg(device))];
                character.extend(unless(JEQ_K, 0, notify()));
                // The type in the accumulator is needed for the second test, so that one is first.
                code.extend(when(JEQ_K, S_IFBLK, notify()));
                code.extend(when(JEQ_K, S_IFCHR, character));
                code
            }
        }
    }
}

fn new_mount_or_remount() -> Vec<Instruction> {
    const LOW: u32 = MS_BIND | MS_MOVE;
    const ALL: u32 = LOW | MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;
    let test = |mask| {
        let mut code = vec![Instruction::load(arg(3))];
        code.extend(unless(JSET_K, mask, vec![Instruction::ret(RET_USER_NOTIF)]));
        code
    };
    let modern = test(ALL);
    let mut magic = test(LOW);
    magic.push(Instruction::skip(modern.len() as u32));
    // Before all the others, as the kernel does it: a remount may carry MS_BIND.
    let mut code = vec![Instruction::load(arg(3))];
    code.extend(when(JSET_K, MS_REMOUNT, vec![Instruction::ret(RET_USER_NOTIF)]));
    code.push(Instruction::and(MS_MGC_MSK));
    code.extend(when(JEQ_K, MS_MGC_VAL, magic));
    code.extend(modern);
    code
}
