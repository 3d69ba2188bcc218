//! The system call ABIs that a program distinguishes.
//!
//! One kernel serves several: a 64-bit x86 kernel takes calls with 64-bit, x32 and 32-bit numbers.
//! A trap or a denial that misses one of them can be walked around.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::Arch;

use crate::newer;

/// Bit that marks a number as x32 (`__X32_SYSCALL_BIT`); `arch` is that of x86_64.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// An ABI for which this crate adds traps and `ENOSYS` rules of its own. Others that a profile
/// may list are served by libseccomp alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 64-bit x86 with 32-bit pointers.
    X32,
    /// 32-bit x86.
    I386,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
}

impl Abi {
    /// What this machine's kernel may be asked through, native first.
    pub fn of_this_machine() -> &'static [Self] {
        if cfg!(target_arch = "x86_64") {
            &[Self::X86_64, Self::X32, Self::I386]
        } else if cfg!(target_arch = "aarch64") {
            &[Self::Aarch64, Self::Arm]
        } else {
            &[]
        }
    }

    /// The one that a profile's architecture means, if it is one of ours.
    pub(crate) fn from_oci(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Self::of_this_machine().first().copied(),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// `seccomp_data.arch` of its calls (`AUDIT_ARCH_*`, `linux/audit.h`).
    pub(crate) const fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Number of the call `name` as the kernel sees it; `None` if the ABI has no such call.
    pub fn number(self, name: &str) -> Option<u32> {
        let listed = ScmpSyscall::from_name_by_arch(name, self.scmp());
        match listed.map(|call| call.as_raw_syscall()) {
            // Negative: libseccomp knows the name, but only from other architectures.
            Ok(number) => u32::try_from(number).ok(),
            Err(_) => newer::number(name).map(|number| match self {
                Self::X32 => number | X32_BIT,
                _ => number,
            }),
        }
    }

    fn scmp(self) -> ScmpArch {
        match self {
            Self::X86_64 => ScmpArch::X8664,
            Self::X32 => ScmpArch::X32,
            Self::I386 => ScmpArch::X86,
            Self::Aarch64 => ScmpArch::Aarch64,
            Self::Arm => ScmpArch::Arm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel_headers() {
        let table = [
            ("mount", [Some(165), Some(165 | X32_BIT), Some(21), Some(40), Some(21)]),
            ("umount", [None, None, Some(22), None, None]),
            ("umount2", [Some(166), Some(166 | X32_BIT), Some(52), Some(39), Some(52)]),
            ("mknod", [Some(133), Some(133 | X32_BIT), Some(14), None, Some(14)]),
            ("execve", [Some(59), Some(520 | X32_BIT), Some(11), Some(221), Some(11)]),
            ("fsopen", [Some(430), Some(430 | X32_BIT), Some(430), Some(430), Some(430)]),
            ("statmount", [Some(457), Some(457 | X32_BIT), Some(457), Some(457), Some(457)]),
            ("no_such_call", [None; 5]),
        ];
        let abis = [Abi::X86_64, Abi::X32, Abi::I386, Abi::Aarch64, Abi::Arm];
        for (name, numbers) in table {
            assert_eq!(abis.map(|abi| abi.number(name)), numbers, "{name}");
        }
    }
}
