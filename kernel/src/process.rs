//! Processes: clone3, waiting by pidfd, file-system ids, exec, and leaving no descriptor behind.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// Namespaces and relation for [`clone_process`]: the bits of clone(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// A plain child.
    pub const NONE: Self = Self(0);
    /// `CLONE_NEWUSER`
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// `CLONE_NEWPID`
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// `CLONE_NEWNET`
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    /// `CLONE_NEWIPC`
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// `CLONE_NEWUTS`
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// `CLONE_FILES`: the table of descriptors is shared, not copied. A copy would keep everything
    /// that other threads have open in use for as long as the child lives, and a mount that is in
    /// use cannot be unmounted.
    pub const SHARE_FILES: Self = Self(libc::CLONE_FILES as u64);
    /// `CLONE_PARENT`: the new process becomes a sibling, a child of the caller's parent.
    pub const SIBLING: Self = Self(libc::CLONE_PARENT as u64);

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which side of a fork one is on.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The caller.
    Parent {
        /// Id of the new process in the caller's pid namespace.
        pid: i32,
        /// The new process.
        pidfd: OwnedFd,
    },
}

/// `clone3(2)` without shared memory: fork with namespaces and a pidfd.
///
/// The child of a process that has threads may do nothing but system calls and [`exit_now`]; the
/// runtime itself never starts a thread, so its children are ordinary processes.
pub fn clone_process(flags: CloneFlags) -> io::Result<Fork> {
    clone_process_into(flags, None)
}

/// [`clone_process`] with the child born in a cgroup v2 directory (`CLONE_INTO_CGROUP`), which
/// needs no grace period as a later move would.
///
/// # Errors
/// Also those of entering the cgroup: `EBUSY` where it gives controllers to children,
/// `EOPNOTSUPP` where it takes no domain processes, `EACCES` without write permission.
pub fn clone_process_into(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    let sibling = flags.0 & CloneFlags::SIBLING.0 != 0;
    let mut args = libc::clone_args {
        flags: flags.0
            | libc::CLONE_PIDFD as u64
            | cgroup.map_or(0, |_| linux_raw_sys::general::CLONE_INTO_CGROUP),
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the exit signal is the caller's own and must be given as 0.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: without CLONE_VM the child runs on a copy of this address space, as after fork(2);
    // `args` is a live clone_args of the size given, and `pidfd` lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent {
            pid: i32::try_from(pid).unwrap_or(i32::MAX),
            // SAFETY: the kernel has just stored a new descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for the end of a child and returns its exit code, or 128 + the number of the signal that
/// ended it.
pub fn wait_pidfd(pidfd: impl AsFd) -> io::Result<i32> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    })?;
    let status = status.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock))?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    })
}

/// Sends any signal, also a real-time one that has no name of its own, by pidfd.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers and a NULL siginfo; the kernel checks them.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, 0, 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends the process at once, without running destructors or `atexit` functions (which belong to
/// the parent's copy of the program).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Sleeps until a signal ends the process.
pub fn pause_for_ever() -> ! {
    loop {
        // SAFETY: pause(2) has no preconditions.
        unsafe { libc::pause() };
    }
}

/// Sleeps until a signal ends the process, or until `parent` is no longer its parent.
///
/// For a child that shares its parent's descriptors: `PR_SET_PDEATHSIG` alone loses a parent that dies
/// before it is set, or while a change of credentials has cleared it, and such a child would keep the
/// parent's locks and sockets for ever. System calls only.
pub fn pause_while_child_of(parent: Pid) -> ! {
    let moment = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while rustix::process::getppid() == Some(parent) {
        let _ = rustix::thread::nanosleep(&moment);
    }
    exit_now(1)
}

/// Sets the file-system user and group id of the calling thread (setfsuid(2)), returning the
/// former pair. The kernel reports no errors: the new values are read back and compared.
pub fn set_fs_ids(uid: u32, gid: u32) -> io::Result<(u32, u32)> {
    // SAFETY: these calls take plain numbers and only change the thread's own credentials.
    let (old_gid, new_gid) = unsafe { (libc::setfsgid(gid), libc::setfsgid(u32::MAX)) };
    // SAFETY: as above.
    let (old_uid, new_uid) = unsafe { (libc::setfsuid(uid), libc::setfsuid(u32::MAX)) };
    if new_gid.cast_unsigned() != gid || new_uid.cast_unsigned() != uid {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok((old_uid.cast_unsigned(), old_gid.cast_unsigned()))
}

/// Marks every descriptor from `first` on close-on-exec, `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing now, so no owned descriptor is invalidated.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor but the standard streams, the `preserved` ones that follow them, and
/// those in `keep`. For a process that is about to become another program: what it inherited as a
/// copy of its parent's memory still names the closed descriptors and must not be used again.
pub fn close_all_but(preserved: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    keep.sort_unstable();
    let mut first = 3 + preserved;
    for end in keep.into_iter().map(Some).chain([None]) {
        let last = end.map_or(u32::MAX, |fd| fd.saturating_sub(1));
        if first <= last && end != Some(first) {
            // SAFETY: the process is a fresh copy of its parent whose inherited owners of these
            // descriptors are never used or dropped again (it ends in execve or `exit_now`).
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(end.map_or(first, |fd| fd + 1));
    }
    Ok(())
}

/// Clears close-on-exec of one raw descriptor number (those that `--preserve-fds` names).
pub fn keep_over_exec(fd: i32) -> io::Result<()> {
    // SAFETY: F_SETFD only changes a flag of the descriptor; a closed one gives EBADF.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets every signal to its default action and unblocks all: the Rust runtime ignores SIGPIPE, and
/// ignored signals and the mask survive execve(2).
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting SIG_DFL installs no handler code; invalid numbers give EINVAL.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is initialised by sigemptyset before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Lets the signals that end programs end this process even if it is the first of a pid namespace, where
/// the kernel drops those that have no handler. execve(2) sets them back.
pub fn end_at_signals() {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler only calls _exit(2), which is async-signal-safe.
        unsafe { libc::signal(signal, end as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// `execve(2)`; returns only on failure.
pub fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays are NULL-terminated and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Joins a new anonymous session keyring (keyctl(2)), so that the caller's keys stay outside.
pub fn new_session_keyring() -> io::Result<()> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a NULL name takes no memory of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number behind a borrowed descriptor, for `/proc/self/fd/N` paths.
pub fn fd_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}
/// Lets the C library's allocator have at most `count` heaps from now on. It makes up to eight for each
/// processor otherwise, one for each thread at first, and what was once used of a heap stays resident
/// when the thread is gone.
pub fn limit_heaps(count: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number in the allocator, which takes its own lock for it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = count;
}
