//! eBPF programs that decide about device access of a cgroup (what cgroup v2 has in place of the
//! `devices` controller of v1), and about its access to `/proc/sys`.
//!
//! The programs are made elsewhere, as a list of [`Instruction`]s; here they are handed to the
//! kernel (which verifies them, so a wrong one is refused, never harmful) and attached to a cgroup
//! directory. An attached program lives as long as the cgroup.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction, with the fields of `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Destination register, 0 to 10.
    pub dst: u8,
    /// Source register, 0 to 10.
    pub src: u8,
    /// Offset of a jump (in instructions, from the next one) or of a memory access (in bytes).
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

impl Instruction {
    fn encode(self) -> [u8; 8] {
        // The two registers are bit fields, whose order follows the byte order.
        let registers = if cfg!(target_endian = "little") {
            self.dst & 0xf | self.src << 4
        } else {
            self.dst << 4 | self.src & 0xf
        };
        let [offset_0, offset_1] = self.offset.to_ne_bytes();
        let [a, b, c, d] = self.immediate.to_ne_bytes();
        [self.code, registers, offset_0, offset_1, a, b, c, d]
    }
}

// include/uapi/linux/bpf.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_DETACH: libc::c_long = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_PROG_TYPE_CGROUP_SYSCTL: u32 = 23;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_CGROUP_SYSCTL: u32 = 18;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` reads (later fields count as zero).
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The part for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// The part for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `bpf(2)`.
///
/// # Safety
/// Every pointer in `attr` that `command` makes the kernel use must be valid for the length that
/// `attr` gives for it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a `repr(C)` start of `union bpf_attr` and lives through the call; the
    // kernel gets its size and reads and writes no further. The pointers inside are the caller's.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that a `bpf(2)` command answered with.
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`. The descriptor is close-on-exec.
///
/// # Errors
/// `EPERM` without `CAP_BPF` (or `CAP_SYS_ADMIN`); `EINVAL` or `EACCES` for a program that the
/// verifier refuses; `ENOSYS` for a kernel without `CONFIG_CGROUP_BPF`.
pub fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let (kind, attach) = (BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE);
    load(kind, attach, *b"sysbox_devices\0\0", instructions)
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_SYSCTL`, as [`load_device_program`].
///
/// # Errors
/// As there.
pub fn load_sysctl_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let (kind, attach) = (BPF_PROG_TYPE_CGROUP_SYSCTL, BPF_CGROUP_SYSCTL);
    load(kind, attach, *b"sysbox_sysctls\0\0", instructions)
}

fn load(
    kind: u32,
    attach: u32,
    name: [u8; 16],
    instructions: &[Instruction],
) -> io::Result<OwnedFd> {
    let code: Vec<[u8; 8]> = instructions.iter().map(|insn| insn.encode()).collect();
    // The kernel wants the instructions aligned as its own structure is.
    let code: Vec<u64> = code.into_iter().map(u64::from_ne_bytes).collect();
    let mut attr = LoadAttr {
        prog_type: kind,
        insn_cnt: u32::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: name,
        expected_attach_type: attach,
        ..LoadAttr::default()
    };
    // SAFETY: `insns` points to `insn_cnt` instructions and `license` to a C string, which both
    // live until the call returns; there is no log buffer (level and size are zero).
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr)? };
    Ok(owned(fd))
}

/// Attaches a device program to a cgroup v2 directory, beside those already there (all must allow
/// an access), or in the place of `replace`, in one step.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` and `CAP_BPF`, or where a program above forbids others;
/// `ENOENT` when `replace` is not attached here.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let replace_flag = if replace.is_some() { BPF_F_REPLACE } else { 0 };
    let mut attr = AttachAttr {
        target_fd: number(cgroup.as_fd()),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI | replace_flag,
        replace_bpf_fd: replace.map_or(0, number),
    };
    // SAFETY: this command uses no pointer.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// Attaches a sysctl program to a cgroup v2 directory, beside those already there: all must allow
/// an access.
///
/// # Errors
/// As [`attach_device_program`].
pub fn attach_sysctl_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup.as_fd()),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: BPF_CGROUP_SYSCTL,
        attach_flags: BPF_F_ALLOW_MULTI,
        ..AttachAttr::default()
    };
    // SAFETY: this command uses no pointer.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a device program off a cgroup v2 directory.
///
/// # Errors
/// `ENOENT` when it is not attached here.
pub fn detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(cgroup.as_fd()),
        attach_bpf_fd: number(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        ..AttachAttr::default()
    };
    // SAFETY: this command uses no pointer.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}

/// The device programs that are attached to this very cgroup directory (not those above it).
///
/// # Errors
/// `EPERM` without the rights to query; `EINVAL` where the kernel has no eBPF for cgroups.
pub fn device_programs(cgroup: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    // The kernel allows 64 programs at one cgroup (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        target_fd: number(cgroup.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..QueryAttr::default()
    };
    // SAFETY: `prog_ids` points to room for `prog_cnt` numbers, which lives until the call returns.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr)? };
    let ids = ids.iter().take(attr.prog_cnt as usize);
    let mut programs = Vec::new();
    for id in ids {
        let mut attr = IdAttr { prog_id: *id, ..IdAttr::default() };
        // SAFETY: this command uses no pointer.
        match unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) } {
            Ok(fd) => programs.push(owned(fd)),
            // Detached and freed since the query.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding() {
        // r0 = 1
        let insn = Instruction { code: 0xb7, dst: 0, src: 0, offset: 0, immediate: 1 };
        let one = 1_i32.to_ne_bytes();
        assert_eq!(insn.encode(), [0xb7, 0, 0, 0, one[0], one[1], one[2], one[3]]);
        let insn = Instruction { code: 0xbf, dst: 2, src: 3, offset: -1, immediate: 0 };
        let registers = if cfg!(target_endian = "little") { 0x32 } else { 0x23 };
        assert_eq!(insn.encode(), [0xbf, registers, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn the_verifier_has_the_last_word() {
        let set = Instruction { code: 0xb7, dst: 0, src: 0, offset: 0, immediate: 1 };
        let exit = Instruction { code: 0x95, dst: 0, src: 0, offset: 0, immediate: 0 };
        match load_device_program(&[set, exit]) {
            Ok(_) => {}
            // Not root, or a kernel without it.
            Err(error) => assert!(
                matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL)),
                "{error}"
            ),
        }
        assert!(load_device_program(&[set]).is_err(), "a program without an end");
        assert!(load_device_program(&[]).is_err());
    }
}
