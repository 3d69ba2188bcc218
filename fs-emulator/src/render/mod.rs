//! The numbers of a [`View`](crate::view::View) in the kernel's own text format.
//!
//! One function for each file. They never fail: a reader gets what the native file would look like
//! on a machine of the container's size.

mod cmdline;
mod cpuinfo;
mod cpulist;
mod disks;
mod identity;
mod loadavg;
mod meminfo;
mod node;
mod pressure;
mod stat;
mod swaps;
mod sysinfo;
mod uptime;
mod vmstat;

pub use cmdline::cmdline;
pub use cpuinfo::cpuinfo;
pub use cpulist::{offline, online};
pub use disks::{diskstats, partitions};
pub use identity::{boot_id, product_uuid};
pub use loadavg::loadavg;
pub use meminfo::meminfo;
pub use node::{node_cpulist, node_cpumap, node_meminfo};
pub use pressure::pressure;
pub use stat::stat;
pub use swaps::swaps;
pub use sysinfo::sysinfo;
pub use uptime::uptime;
pub use vmstat::vmstat;

/// Microseconds of one clock tick (`USER_HZ` is 100 on every architecture that Linux has).
const TICK: u64 = 10_000;
