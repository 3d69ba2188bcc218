//! Installing a seccomp filter with `seccomp(2)`, and asking what the kernel can do with one.
//!
//! The filter program itself (what is allowed, what is trapped) comes from `sysbox-seccomp`; this
//! module only loads it. The receiving side of a listener is in [`crate::notify`].

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_uint, c_ulong};

/// Size of one classic BPF instruction, `struct sock_filter`, in bytes.
pub const INSTRUCTION_SIZE: usize = size_of::<libc::sock_filter>();

/// Most instructions that the kernel takes in one program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Log every action but "allow" (`SECCOMP_FILTER_FLAG_LOG`).
pub const FLAG_LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;

/// Leave speculative store bypass as it is (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`): without it, kernels
/// older than 5.16 switch a costly mitigation on for the whole task.
pub const FLAG_SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// A trapped caller whose request was received can only be killed, not interrupted
/// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, 5.19). Without it the preemption signals of a Go
/// program restart a trapped mount(2) for ever.
const FLAG_WAIT_KILLABLE_RECV: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
const FLAG_NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// Loads `program` (an array of `struct sock_filter` in host byte order) as a filter of the calling
/// thread and, with `listener`, returns the descriptor that receives its notifications.
///
/// `flags` may hold [`FLAG_LOG`] and [`FLAG_SPEC_ALLOW`]. The thread needs `CAP_SYS_ADMIN` in its
/// user namespace or the no_new_privs attribute. A filter can't be removed again; it is inherited
/// by children and kept over execve(2).
///
/// # Errors
///
/// `EBUSY`: a listener was asked for but an earlier filter of this task has one already (a nested
/// system container, WSL2); the caller may load a program without traps instead. `EACCES`: neither
/// capability nor no_new_privs. `EINVAL`: not a valid program, or a flag that this kernel lacks.
pub fn install(program: &[u8], listener: bool, flags: u32) -> io::Result<Option<OwnedFd>> {
    let count = program.len() / INSTRUCTION_SIZE;
    if !program.len().is_multiple_of(INSTRUCTION_SIZE) || !(1..=MAX_INSTRUCTIONS).contains(&count) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a seccomp program"));
    }
    if flags & !(FLAG_LOG | FLAG_SPEC_ALLOW) != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "unknown seccomp filter flag"));
    }
    let flags = match listener {
        true => flags | FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV,
        false => flags,
    };
    let program = libc::sock_fprog {
        len: count as libc::c_ushort,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies `len` instructions of 8 bytes, which the slice holds (checked
    // above), without alignment demands and without writing; the slice outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            c_ulong::from(flags),
            &raw const program,
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: with NEW_LISTENER a result that is not an error is a descriptor made for us.
        fd if listener => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })),
        _ => Ok(None),
    }
}

/// Whether this kernel has notifications that a filter can send to a listener and that leave a
/// received caller killable only (5.19).
///
/// Whether *this task* may have a listener is another question, which only [`install`] answers.
pub fn is_listener_supported() -> bool {
    has_notify_action() && has_flags(FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV)
}

fn has_notify_action() -> bool {
    let action: c_uint = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads four bytes from `action`, which outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_GET_ACTION_AVAIL),
            0 as c_ulong,
            &raw const action,
        )
    };
    result == 0
}

/// Flags are checked before the program is read: a null program gives `EFAULT` if the kernel knows
/// the flags and `EINVAL` if it doesn't, and never installs anything.
fn has_flags(flags: u32) -> bool {
    // SAFETY: the null program makes the call fail in any case; nothing is read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            c_ulong::from(flags),
            ptr::null::<libc::sock_fprog>(),
        )
    };
    result == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_probed_without_installing_anything() {
        assert!(has_flags(FLAG_LOG));
        assert!(has_flags(FLAG_SPEC_ALLOW));
        assert!(!has_flags(1 << 30));
        assert!(is_listener_supported());
    }

    #[test]
    fn what_is_no_program_is_refused_before_the_kernel_sees_it() {
        let too_long = vec![0; (MAX_INSTRUCTIONS + 1) * INSTRUCTION_SIZE];
        for program in [&b""[..], &b"seven b"[..], &too_long] {
            let error = install(program, false, 0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(
            install(&[0; 8], false, 1 << 3).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }

    #[test]
    fn a_listener_is_a_descriptor_and_a_second_one_is_busy() {
        // `ret ALLOW`: harmless for the test's thread, which ends with the test.
        let mut allow_all = vec![0x06, 0, 0, 0];
        allow_all.extend(libc::SECCOMP_RET_ALLOW.to_ne_bytes());
        rustix::thread::set_no_new_privs(true).unwrap();
        assert!(install(&allow_all, false, FLAG_SPEC_ALLOW).unwrap().is_none());
        let listener = install(&allow_all, true, 0).unwrap();
        assert!(listener.is_some());
        let error = install(&allow_all, true, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }
}
