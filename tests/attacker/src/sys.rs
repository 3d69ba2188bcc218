//! System calls as an attacker makes them: by number, with any argument, by each entry of the kernel.

use std::ffi::CString;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An `errno`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::EPERM => "EPERM",
            libc::ENOENT => "ENOENT",
            libc::EIO => "EIO",
            libc::EAGAIN => "EAGAIN",
            libc::EACCES => "EACCES",
            libc::EFAULT => "EFAULT",
            libc::EBUSY => "EBUSY",
            libc::EINVAL => "EINVAL",
            libc::ENODEV => "ENODEV",
            libc::ENXIO => "ENXIO",
            libc::EROFS => "EROFS",
            libc::ELOOP => "ELOOP",
            libc::ENOSYS => "ENOSYS",
            libc::ENAMETOOLONG => "ENAMETOOLONG",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            other => return write!(f, "errno {other}"),
        };
        f.write_str(name)
    }
}

/// What a call says.
pub type Answer = Result<i64, Errno>;

/// The `errno` of the last call of the C library.
pub fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// A way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `syscall` with the numbers of this machine.
    Native,
    /// `int 0x80` with those of i386.
    I386,
    /// `syscall` with the bit of x32 in the number.
    X32,
}

/// Makes a call by its number in the table of `entry`, with whatever is in `args`.
///
/// # Safety
/// The call may write to no memory that is in use. Addresses that mean nothing are fine.
pub unsafe fn raw(entry: Entry, number: i64, args: [u64; 6]) -> Answer {
    let [a, b, c, d, e, f] = args;
    match entry {
        Entry::I386 => {
            // SAFETY: as promised by our caller.
            let result = unsafe { int80(number, args) };
            if (-4095..0).contains(&result) { Err(Errno(-result)) } else { Ok(result.into()) }
        }
        Entry::Native | Entry::X32 => {
            let bit = if entry == Entry::X32 { 0x4000_0000 } else { 0 };
            // SAFETY: as promised by our caller.
            let result = unsafe { libc::syscall(number | bit, a, b, c, d, e, f) };
            if result < 0 { Err(last()) } else { Ok(result) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn int80(number: i64, args: [u64; 6]) -> i32 {
    let result: u64;
    // SAFETY: the kernel changes nothing but rax; what the call itself does is our caller's promise.
    // rbx and rbp are not for the compiler to give away, so they are saved here.
    unsafe {
        std::arch::asm!(
            "push rbx", "push rbp",
            "mov rbx, [r8]", "mov rcx, [r8 + 8]", "mov rdx, [r8 + 16]",
            "mov rsi, [r8 + 24]", "mov rdi, [r8 + 32]", "mov rbp, [r8 + 40]",
            "int 0x80",
            "pop rbp", "pop rbx",
            inlateout("rax") number.cast_unsigned() => result,
            out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            inlateout("r8") args.as_ptr() => _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result as i32
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn int80(_: i64, _: [u64; 6]) -> i32 {
    -libc::ENOSYS
}

/// A string at an address that fits into 32 bits; it stays there for ever.
pub fn low(text: &str) -> u64 {
    const SIZE: usize = 1 << 22;
    static START: AtomicUsize = AtomicUsize::new(0);
    static USED: AtomicUsize = AtomicUsize::new(0);
    if START.load(Ordering::Acquire) == 0 {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping, where the kernel finds room.
        let new = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protection, flags, -1, 0) };
        assert_ne!(new, libc::MAP_FAILED, "memory below 4 GiB");
        START.store(new as usize, Ordering::Release);
    }
    let text = CString::new(text).expect("no zero byte");
    let bytes = text.as_bytes_with_nul();
    let at = USED.fetch_add(bytes.len(), Ordering::AcqRel);
    assert!(at + bytes.len() <= SIZE, "no room for more strings");
    let address = START.load(Ordering::Acquire) + at;
    // SAFETY: this piece of the mapping was reserved above for this string alone.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    address as u64
}

/// A string for a call by any entry; null for `None`.
pub fn text(text: Option<&str>) -> u64 {
    text.map_or(0, low)
}

/// A directory descriptor that means "from the working directory".
pub const CWD: u64 = libc::AT_FDCWD as i64 as u64;

/// Makes a call whose arguments are numbers, descriptors and strings from [`low`], none of which the
/// kernel writes to.
pub fn call(entry: Entry, name: Call, args: &[u64]) -> Answer {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let number = match entry {
        Entry::I386 => name.i386,
        Entry::Native | Entry::X32 => name.native,
    };
    // SAFETY: the calls in this program's table write to no memory.
    unsafe { raw(entry, number, all) }
}

/// A call and its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// For messages.
    pub name: &'static str,
    native: i64,
    i386: i64,
}

macro_rules! calls {
    ($($constant:ident $name:literal $native:ident $i386:literal;)*) => {
        $(#[doc = $name] pub const $constant: Call =
            Call { name: $name, native: libc::$native, i386: $i386 };)*
    };
}

calls! {
    MOUNT "mount" SYS_mount 21;
    UMOUNT2 "umount2" SYS_umount2 52;
    PIVOT_ROOT "pivot_root" SYS_pivot_root 217;
    OPEN_TREE "open_tree" SYS_open_tree 428;
    MOVE_MOUNT "move_mount" SYS_move_mount 429;
    FSOPEN "fsopen" SYS_fsopen 430;
    FSCONFIG "fsconfig" SYS_fsconfig 431;
    FSMOUNT "fsmount" SYS_fsmount 432;
    FSPICK "fspick" SYS_fspick 433;
    MOUNT_SETATTR "mount_setattr" SYS_mount_setattr 442;
    MKNODAT "mknodat" SYS_mknodat 297;
    UNSHARE "unshare" SYS_unshare 310;
    SETNS "setns" SYS_setns 346;
    CHROOT "chroot" SYS_chroot 61;
    CHDIR "chdir" SYS_chdir 12;
    INIT_MODULE "init_module" SYS_init_module 128;
    FINIT_MODULE "finit_module" SYS_finit_module 350;
    DELETE_MODULE "delete_module" SYS_delete_module 129;
    KEXEC_LOAD "kexec_load" SYS_kexec_load 283;
    SWAPON "swapon" SYS_swapon 87;
    SWAPOFF "swapoff" SYS_swapoff 115;
    ACCT "acct" SYS_acct 51;
    SYSLOG "syslog" SYS_syslog 103;
    IOPERM "ioperm" SYS_ioperm 101;
    IOPL "iopl" SYS_iopl 110;
    IO_URING_SETUP "io_uring_setup" SYS_io_uring_setup 425;
    USERFAULTFD "userfaultfd" SYS_userfaultfd 374;
    PERF_EVENT_OPEN "perf_event_open" SYS_perf_event_open 336;
    KEYCTL "keyctl" SYS_keyctl 288;
    SHMGET "shmget" SYS_shmget 395;
    MSGGET "msgget" SYS_msgget 399;
    KILL "kill" SYS_kill 37;
    PRLIMIT64 "prlimit64" SYS_prlimit64 340;
    CLOCK_SETTIME "clock_settime" SYS_clock_settime 264;
    SETTIMEOFDAY "settimeofday" SYS_settimeofday 79;
    CLOSE "close" SYS_close 6;
}
