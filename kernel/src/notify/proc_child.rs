//! A procfs of another pid namespace on kernels without the `pidns` option (before 6.18).
//!
//! procfs belongs to the pid namespace of the task that opens it, and a task never changes its
//! own: only a child can be born into another one. The child here is as small as one can be: it
//! shares the address space and the descriptor table of this process (so the mount descriptor
//! that it makes is at once ours), the calling thread sleeps while it lives, and it makes nothing
//! but four or so system calls, none of which touches a file system of the container.
//!
//! Seen from inside, it is a task with the host's credentials for some microseconds: container
//! root can neither signal nor trace it.

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const STACK_SIZE: usize = 64 * 1024;

/// What the child is to do, and what came of it.
struct Job<'a> {
    options: &'a [(CString, Option<CString>)],
    attributes: u32,
    /// A mount descriptor, or a negative errno.
    result: i32,
}

/// A new detached procfs of the pid namespace `pidns`.
///
/// `options` are keys with a value, or flags without one; `attributes` are `MOUNT_ATTR_*` bits.
/// `own_pidns` is the namespace that the calling thread's children belong to otherwise.
///
/// # Errors
/// `EINVAL` for options that procfs does not know, `ENOMEM` when the namespace is dead. A failure
/// to go back to `own_pidns` is reported as such; the thread must then not start others.
pub fn new_proc_by_child(
    pidns: impl AsFd,
    own_pidns: impl AsFd,
    options: &[(CString, Option<CString>)],
    attributes: u32,
) -> io::Result<OwnedFd> {
    move_into_link_name_space(pidns.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    let mut job = Job { options, attributes, result: -libc::ECHILD };
    let born = run(&mut job);
    let back = move_into_link_name_space(own_pidns.as_fd(), Some(LinkNameSpaceType::ProcessID));
    born?;
    let mount = if job.result < 0 {
        Err(io::Error::from_raw_os_error(-job.result))
    } else {
        // SAFETY: the child stored a descriptor that it made in our table and that nobody owns.
        Ok(unsafe { OwnedFd::from_raw_fd(job.result) })
    };
    back?;
    mount
}

/// Runs the job in a child and waits for its end.
fn run(job: &mut Job<'_>) -> io::Result<()> {
    let mut stack = vec![0_u8; STACK_SIZE];
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_VFORK;
    // SAFETY: the child runs `child` on its own stack, of which the (16-byte aligned) end is
    // given; CLONE_VFORK keeps this thread asleep until the child is gone, so stack and job
    // outlive it and nothing else touches them. No exit signal: only we wait for it.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK_SIZE);
        let top = top.sub(top as usize % 16);
        libc::clone(child, top.cast::<c_void>(), flags, std::ptr::from_mut(job).cast::<c_void>())
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    loop {
        // SAFETY: waits for our own child and stores into a live integer. __WCLONE because the
        // child was made without a signal.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WCLONE) };
        if waited == pid {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The child: system calls only, no allocation, no lock.
extern "C" fn child(job: *mut c_void) -> c_int {
    // SAFETY: `run` passes a pointer to a live job that it does not touch meanwhile.
    let job = unsafe { &mut *job.cast::<Job<'_>>() };
    job.result = mount(job).unwrap_or_else(|errno| -errno);
    0
}

fn mount(job: &Job<'_>) -> Result<RawFd, i32> {
    // SAFETY: a constant string and a flag.
    let context = call(unsafe {
        libc::syscall(libc::SYS_fsopen, c"proc".as_ptr(), linux_raw_sys::general::FSOPEN_CLOEXEC)
    })?;
    let mount = configure(job, context);
    // SAFETY: the descriptor was made above and is known to nobody else.
    unsafe { libc::close(context) };
    mount
}

fn configure(job: &Job<'_>, context: RawFd) -> Result<RawFd, i32> {
    use linux_raw_sys::general::fsconfig_command as command;
    let configure = |what: command, key: *const libc::c_char, value: *const libc::c_char| {
        // SAFETY: key and value are null or NUL-terminated strings that outlive the call.
        call(unsafe { libc::syscall(libc::SYS_fsconfig, context, what as u32, key, value, 0) })
    };
    for (key, value) in job.options {
        match value {
            Some(value) => configure(command::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?,
            None => configure(command::FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null())?,
        };
    }
    let null = std::ptr::null();
    configure(command::FSCONFIG_CMD_CREATE, null, null)?;
    // SAFETY: plain numbers.
    call(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context,
            linux_raw_sys::general::FSMOUNT_CLOEXEC,
            job.attributes,
        )
    })
}

fn call(result: libc::c_long) -> Result<RawFd, i32> {
    if result < 0 {
        Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        RawFd::try_from(result).map_err(|_| libc::EIO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_child_makes_a_procfs_and_reports_the_errors_of_the_kernel() {
        let own = File::open("/proc/self/ns/pid").unwrap();
        let mount = new_proc_by_child(&own, &own, &[], 0).unwrap();
        assert_eq!(rustix::fs::fstatfs(&mount).unwrap().f_type, libc::PROC_SUPER_MAGIC);
        let odd = [(c"no-such-option".to_owned(), None)];
        let error = new_proc_by_child(&own, &own, &odd, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let subset = [(c"subset".to_owned(), Some(c"pid".to_owned()))];
        new_proc_by_child(&own, &own, &subset, 1).unwrap();
    }
}
