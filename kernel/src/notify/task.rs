//! The memory of the task that made a trapped call.

use std::io;

/// Copies memory of a thread, `process_vm_readv(2)`; returns how many bytes were there. A range
/// that lies in several pages may come back short.
///
/// # Errors
/// `EFAULT`: nothing mapped at `address`; `ESRCH`: the thread is gone.
pub fn read_memory(tid: u32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let pid = libc::pid_t::try_from(tid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let address =
        usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: the local vector names exactly `into`, which is borrowed for writing; the remote one
    // is an address in another process, which the kernel checks.
    let copied =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_tid() -> u32 {
        rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
    }

    #[test]
    fn memory_of_a_thread_is_copied_and_a_hole_is_efault() {
        let text = *b"/proc/thread-self";
        let mut copy = [0; 17];
        let address = text.as_ptr() as u64;
        assert_eq!(read_memory(own_tid(), address, &mut copy).unwrap(), 17);
        assert_eq!(copy, text);
        let error = read_memory(own_tid(), 8, &mut copy).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn a_thread_that_is_not_there_is_esrch() {
        for tid in [0, u32::MAX, i32::MAX.cast_unsigned()] {
            let error = read_memory(tid, 4096, &mut [0]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
        }
    }
}
