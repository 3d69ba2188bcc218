//! From registers to a request. Only integers here: addresses are not followed.

use sysbox_kernel::notify::Notification;

/// A trapped system call that the broker knows. Numbers named `*_at` are addresses in the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// mount(2)
    Mount(Mount),
    /// umount2(2), and umount(2) with no flags.
    Umount {
        /// Path.
        target_at: u64,
        /// `MNT_*` and `UMOUNT_*`.
        flags: u32,
    },
    /// fsopen(2)
    Fsopen {
        /// Name of the file system type.
        name_at: u64,
    },
    /// mknod(2) and mknodat(2)
    Mknod {
        /// Descriptor that a relative path starts from; `AT_FDCWD` is the working directory.
        dir: i32,
        /// Path.
        path_at: u64,
        /// Type and permissions.
        mode: u32,
        /// Device number in the encoding of the system call.
        device: u32,
    },
    /// sysinfo(2)
    Sysinfo {
        /// Where the answer goes.
        to: u64,
        /// How it is laid out.
        layout: Layout,
    },
}

/// How an ABI lays out `struct sysinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `unsigned long` has 32 bits.
    Long32,
    /// It has 64.
    Long64,
}

impl Request {
    /// What it is counted as: one of [`CALLS`](crate::metrics::CALLS).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mount(_) => "mount",
            Self::Umount { .. } => "umount",
            Self::Fsopen { .. } => "fsopen",
            Self::Mknod { .. } => "mknod",
            Self::Sysinfo { .. } => "sysinfo",
        }
    }
}

/// The arguments of mount(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it shows as its source.
    pub source_at: u64,
    /// Path to mount on.
    pub target_at: u64,
    /// Name of the file system type.
    pub type_at: u64,
    /// `MS_*`
    pub flags: u64,
    /// Options.
    pub data_at: u64,
}

/// "The working directory" as a directory descriptor.
pub const AT_FDCWD: i32 = -100;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
/// Numbers of the x32 ABI carry this bit; the calls here have the x86_64 numbers otherwise.
const X32: u32 = 0x4000_0000;

#[derive(Clone, Copy)]
enum Call {
    Mount,
    Umount,
    Umount2,
    Fsopen,
    Mknod,
    MknodAt,
    Sysinfo(Layout),
}

/// From the kernel's system call tables. `None`: not one of ours; the call continues.
fn call(arch: u32, nr: u32) -> Option<Call> {
    let call = match (arch, nr) {
        (AUDIT_ARCH_X86_64, _) => match nr & !X32 {
            165 => Call::Mount,
            166 => Call::Umount2,
            430 => Call::Fsopen,
            133 => Call::Mknod,
            259 => Call::MknodAt,
            99 => Call::Sysinfo(Layout::Long64),
            _ => return None,
        },
        (AUDIT_ARCH_I386, 21) => Call::Mount,
        (AUDIT_ARCH_I386, 22) => Call::Umount,
        (AUDIT_ARCH_I386, 52) => Call::Umount2,
        (AUDIT_ARCH_I386, 430) => Call::Fsopen,
        (AUDIT_ARCH_I386, 14) => Call::Mknod,
        (AUDIT_ARCH_I386, 297) => Call::MknodAt,
        (AUDIT_ARCH_I386, 116) => Call::Sysinfo(Layout::Long32),
        (AUDIT_ARCH_AARCH64, 40) => Call::Mount,
        (AUDIT_ARCH_AARCH64, 39) => Call::Umount2,
        (AUDIT_ARCH_AARCH64, 430) => Call::Fsopen,
        (AUDIT_ARCH_AARCH64, 33) => Call::MknodAt,
        (AUDIT_ARCH_AARCH64, 179) => Call::Sysinfo(Layout::Long64),
        _ => return None,
    };
    Some(call)
}

/// Reads a notification.
pub fn decode(notification: &Notification) -> Option<Request> {
    let args = notification.args;
    // The kernel takes the low half of a register where the parameter is an `int`.
    let int = |n: usize| args[n] as u32;
    Some(match call(notification.arch, notification.nr)? {
        Call::Mount => Request::Mount(Mount {
            source_at: args[0],
            target_at: args[1],
            type_at: args[2],
            flags: args[3],
            data_at: args[4],
        }),
        Call::Umount => Request::Umount { target_at: args[0], flags: 0 },
        Call::Umount2 => Request::Umount { target_at: args[0], flags: int(1) },
        Call::Fsopen => Request::Fsopen { name_at: args[0] },
        Call::Mknod => {
            Request::Mknod { dir: AT_FDCWD, path_at: args[0], mode: int(1), device: int(2) }
        }
        Call::MknodAt => Request::Mknod {
            dir: int(0).cast_signed(),
            path_at: args[1],
            mode: int(2),
            device: int(3),
        },
        Call::Sysinfo(layout) => Request::Sysinfo { to: args[0], layout },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(arch: u32, nr: u32) -> Notification {
        Notification { id: 1, tid: 1, arch, nr, args: [0xffff_ffff_ffff_ff9c, 11, 12, 13, 14, 15] }
    }

    #[test]
    fn the_same_calls_are_found_in_every_abi() {
        let mount = |arch, nr| {
            let request = decode(&notification(arch, nr));
            assert!(
                matches!(request, Some(Request::Mount(m)) if m.flags == 13 && m.data_at == 14),
                "{arch:x} {nr}: {request:?}"
            );
        };
        mount(AUDIT_ARCH_X86_64, 165);
        mount(AUDIT_ARCH_X86_64, 165 | X32);
        mount(AUDIT_ARCH_I386, 21);
        mount(AUDIT_ARCH_AARCH64, 40);
        let at = decode(&notification(AUDIT_ARCH_I386, 297));
        let expected = Request::Mknod { dir: -100, path_at: 11, mode: 12, device: 13 };
        assert_eq!(at, Some(expected));
        let sysinfo = |layout| Some(Request::Sysinfo { to: notification(0, 0).args[0], layout });
        assert_eq!(decode(&notification(AUDIT_ARCH_I386, 116)), sysinfo(Layout::Long32));
        assert_eq!(decode(&notification(AUDIT_ARCH_X86_64, 99 | X32)), sysinfo(Layout::Long64));
        assert!(matches!(
            decode(&notification(AUDIT_ARCH_I386, 22)),
            Some(Request::Umount { flags: 0, .. })
        ));
    }

    #[test]
    fn a_number_of_another_abi_is_not_ours() {
        assert_eq!(decode(&notification(AUDIT_ARCH_I386, 165)), None);
        assert_eq!(decode(&notification(AUDIT_ARCH_AARCH64, 165)), None);
        assert_eq!(decode(&notification(0, 165)), None);
    }
}
