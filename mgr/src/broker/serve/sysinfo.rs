//! sysinfo(2) with the numbers of the container: what `free` and `uptime` of busybox show, and C
//! libraries tell as the size of memory (`sysconf(_SC_PHYS_PAGES)`).
//!
//! `sysbox-fs` has the numbers. If it can't be asked the call goes on, and the kernel tells the
//! host's: a program that wants to know how much memory there is can't do anything with an error.

use std::cell::RefCell;

use sysbox_ipc::FsClient;
use sysbox_ipc::proto::Sysinfo;
use sysbox_kernel::notify::Answer;

use super::super::caller::Caller;
use super::super::request::Layout;
use super::{Attempt, Origin, Served, Stop};

/// Bytes in a page: a unit of memory that needs no 64 bits.
const PAGE: u64 = 4096;

thread_local! {
    /// A thread that was asked once is asked again. The connection ends with the thread, and mends
    /// itself when `sysbox-fs` is another one.
    static SYSBOX_FS: RefCell<Option<FsClient>> = const { RefCell::new(None) };
}

/// Serves a sysinfo(2) whose answer goes `to` an address.
pub fn serve(origin: &Origin, caller: &Caller<'_>, to: u64, layout: Layout) -> Attempt<Served> {
    let id = &origin.container.id;
    let sysinfo = ask(id, caller.tid()).map_err(|error| {
        if origin.may_complain() {
            tracing::warn!(container = id, %error, "sysinfo(2) inside tells the host's numbers");
        }
        Stop::Continue
    })?;
    // What can't be written to, the kernel refuses in its own words.
    caller.write(&bytes(&sysinfo, layout), to).map_err(|_| Stop::Continue)?;
    Ok(Answer::Success.into())
}

fn ask(id: &str, tid: u32) -> Result<Sysinfo, sysbox_ipc::Error> {
    SYSBOX_FS.with_borrow_mut(|kept| {
        let client = kept.take().map_or_else(FsClient::connect, Ok)?;
        let answer = client.sysinfo(id, tid)?;
        *kept = Some(client);
        Ok(answer)
    })
}

/// `struct sysinfo` of an ABI, in the byte order of this machine.
fn bytes(info: &Sysinfo, layout: Layout) -> Vec<u8> {
    let memory =
        [info.total_ram, info.free_ram, info.shared_ram, 0, info.total_swap, info.free_swap];
    let (word, unit, padding) = match layout {
        Layout::Long64 => (8, 1, 0),
        // As the kernel does for more than 32 bits of bytes; old programs know no other unit.
        Layout::Long32 if memory.iter().any(|bytes| *bytes > u64::from(u32::MAX)) => (4, PAGE, 8),
        Layout::Long32 => (4, 1, 8),
    };
    let mut bytes = Vec::with_capacity(112);
    let mut put = |value: u64, size: usize| match size {
        8 => bytes.extend(value.to_ne_bytes()),
        4 => bytes.extend(u32::try_from(value).unwrap_or(u32::MAX).to_ne_bytes()),
        _ => bytes.extend(u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes()),
    };
    put(info.uptime_s, word);
    (0..3).for_each(|i| put(info.loads.get(i).copied().unwrap_or(0), word));
    memory.iter().for_each(|bytes| put(bytes / unit, word));
    put(info.processes.into(), 2);
    // Up to the next word.
    put(0, 2);
    if layout == Layout::Long64 {
        put(0, 4);
    }
    // No high memory.
    put(0, word);
    put(0, word);
    put(unit, 4);
    put(0, 4);
    bytes.truncate(if layout == Layout::Long64 { 112 } else { 56 });
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> Sysinfo {
        Sysinfo {
            uptime_s: 7,
            loads: vec![65536, 2, 3],
            total_ram: 1 << 33,
            free_ram: 1 << 32,
            shared_ram: 4096,
            total_swap: 8192,
            free_swap: 4096,
            processes: 70_000,
        }
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Offsets from `include/uapi/linux/sysinfo.h`.
    #[test]
    fn both_layouts_are_the_kernels() {
        let bytes64 = bytes(&info(), Layout::Long64);
        assert_eq!(bytes64.len(), 112);
        let long = |at: usize| u64::from_ne_bytes(bytes64[at..at + 8].try_into().unwrap());
        assert_eq!((long(0), long(8), long(32), long(72)), (7, 65536, 1 << 33, 4096));
        assert_eq!(bytes64[80..82], [255, 255]);
        assert_eq!(word(&bytes64, 104), 1);

        let bytes32 = bytes(&info(), Layout::Long32);
        assert_eq!(bytes32.len(), 64);
        assert_eq!((word(&bytes32, 0), word(&bytes32, 4)), (7, 65536));
        assert_eq!((word(&bytes32, 16), word(&bytes32, 52)), (1 << 21, 4096));
        let small = Sysinfo { total_ram: 5, free_ram: 4, ..info() };
        let bytes32 = bytes(&small, Layout::Long32);
        assert_eq!((word(&bytes32, 16), word(&bytes32, 52)), (5, 1));
    }
}
