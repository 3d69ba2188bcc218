//! How the kernel treats a process besides its ids: scheduling policy, I/O priority, execution
//! domain, NUMA memory policy.

use std::io;

/// `struct sched_attr` of sched_setattr(2), as far as the first version of it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulingAttributes {
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// -20 to 19, for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// 1 to 99, for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// See `runtime`.
    pub deadline: u64,
    /// See `runtime`.
    pub period: u64,
}

/// The kernel's layout, `SCHED_ATTR_SIZE_VER0`.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `sched_setattr(2)` of a process (its main thread).
pub fn set_scheduling(pid: i32, wanted: &SchedulingAttributes) -> io::Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: wanted.policy,
        flags: wanted.flags,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: `attr` is a live structure that tells its own size; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) })
}

/// `ioprio_set(2)` of a process: class in the bits from 13 on, priority in those below.
pub fn set_io_priority(pid: i32, value: i32) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, value) })
}

/// `personality(2)` of the calling thread; kept over execve(2).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: a plain number.
    check(unsafe { libc::personality(libc::c_ulong::from(domain)) }.into())
}

/// `set_mempolicy(2)` of the calling thread; kept over execve(2). `nodes` are the numbers of the
/// memory nodes.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> io::Result<()> {
    let bits = libc::c_ulong::BITS;
    let words = nodes.iter().max().map_or(0, |last| last / bits + 1);
    let mut mask = vec![0 as libc::c_ulong; words as usize];
    for node in nodes {
        mask[(node / bits) as usize] |= 1 << (node % bits);
    }
    let pointer = if mask.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    // The kernel looks at one bit less than it is told.
    let count = libc::c_ulong::from(words * bits) + libc::c_ulong::from(words > 0);
    // SAFETY: the mask lives until the call returns and holds `count` - 1 bits; the kernel rounds
    // that up to whole words, which it has.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_values_are_taken() {
        set_scheduling(0, &SchedulingAttributes::default()).unwrap();
        set_io_priority(0, 2 << 13 | 4).unwrap();
        set_personality(0).unwrap();
        // MPOL_DEFAULT; a kernel without NUMA has no such call.
        match set_memory_policy(0, &[]) {
            Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => panic!("{e}"),
            _ => {}
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let wrong = SchedulingAttributes { policy: 99, ..SchedulingAttributes::default() };
        assert_eq!(set_scheduling(0, &wrong).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(set_io_priority(0, 7 << 13).is_err());
    }
}
