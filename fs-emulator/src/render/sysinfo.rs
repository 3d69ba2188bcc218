//! What sysinfo(2) says to a thread of a container; the manager answers the call with it.

use sysbox_ipc::proto::Sysinfo;

use super::loadavg::threads;
use crate::view::View;
use crate::view::host::SECOND;

/// The numbers of `/proc/meminfo`, `/proc/uptime` and `/proc/loadavg`.
pub fn sysinfo(view: &View) -> Sysinfo {
    let memory = view.memory();
    let load = *view.container.load.lock().unwrap_or_else(|e| e.into_inner());
    Sysinfo {
        uptime_s: view.uptime().div_ceil(SECOND),
        loads: load.fixed_point().to_vec(),
        total_ram: memory.total,
        free_ram: memory.total - memory.used,
        shared_ram: memory.stat.shmem,
        total_swap: memory.swap_total,
        free_swap: memory.swap_total - memory.swap_used,
        processes: u32::try_from(threads(view)).unwrap_or(u32::MAX),
    }
}
