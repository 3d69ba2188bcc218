//! What a container uses: the numbers of `runc events --stats`, in the same shape.
//!
//! Each number is read where the host has it, v1 or v2, and left out where it has it nowhere: a
//! missing controller never costs more than its own numbers. Serialised, the structures here are
//! the `data` of runc's `stats` events, field by field (`types/events.go` of runc), so an engine
//! that parses those can parse these.

mod blkio;
mod cpu;
mod hugetlb;
mod memory;
mod pids;
mod read;

pub use blkio::{Blkio, BlkioEntry};
pub use cpu::{Cpu, CpuSet, CpuUsage, Throttling};
pub use hugetlb::Hugetlb;
pub use memory::{Memory, MemoryEntry};
pub use pids::Pids;
pub use read::{Pressure, PressureLine};

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cgroup::Cgroup;

/// The resource use of a container. Serialises as the `data` of a `stats` event of runc.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// CPU time, throttling and pressure.
    pub cpu: Cpu,
    /// CPUs and memory nodes that may be used.
    pub cpuset: CpuSet,
    /// Memory and swap.
    pub memory: Memory,
    /// Number of tasks.
    pub pids: Pids,
    /// Block I/O, by device.
    pub blkio: Blkio,
    /// Huge pages, by page size ("2MB").
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

impl Cgroup {
    /// Reads the container's resource use. Never fails: what cannot be read is left out.
    pub fn stats(&self) -> Stats {
        let unified = self.unified();
        let pressure = |name: &str| unified.and_then(|dir| read::pressure(dir, name));
        Stats {
            cpu: Cpu { psi: pressure("cpu.pressure"), ..cpu::usage(self) },
            cpuset: cpu::set(self),
            memory: Memory { psi: pressure("memory.pressure"), ..memory::usage(self) },
            pids: pids::usage(self),
            blkio: Blkio { psi: pressure("io.pressure"), ..blkio::usage(self) },
            hugetlb: hugetlb::usage(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Mount};
    use std::fs;
    use std::path::Path;

    /// A container whose hierarchies are plain directories with these files.
    pub(super) fn container(root: &Path, v1: &[(&str, &str)], v2: &[(&str, &str)]) -> Cgroup {
        let mut mounts = Vec::new();
        let mount = |controllers: Option<Vec<String>>, name: &str| Mount {
            controllers,
            root: root.join(name),
            own: "".into(),
        };
        let put = |hierarchy: &str, file: &str, text: &str| {
            fs::create_dir_all(root.join(hierarchy).join("c")).unwrap();
            fs::write(root.join(hierarchy).join("c").join(file), text).unwrap();
        };
        for (path, text) in v1 {
            let (controller, file) = path.split_once('/').unwrap();
            put(controller, file, text);
            let mount = mount(Some(vec![controller.to_owned()]), controller);
            if !mounts.contains(&mount) {
                mounts.push(mount);
            }
        }
        for (file, text) in v2 {
            put("unified", file, text);
        }
        mounts.push(mount(None, "unified"));
        Cgroup::plan(&Layout::from_mounts(mounts), Some("/c"), "c").unwrap()
    }

    #[test]
    fn nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        let stats = container(dir.path(), &[], &[]).stats();
        assert_eq!(stats, Stats::default());
        // The fields that runc always prints are there all the same.
        let json = serde_json::to_value(&stats).unwrap();
        let expected = serde_json::json!({
            "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
            "cpuset": {"cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0,
                "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0,
                "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0},
            "memory": {"usage": {"limit": 0, "failcnt": 0}, "swap": {"limit": 0, "failcnt": 0},
                "kernel": {"limit": 0, "failcnt": 0}, "kernelTCP": {"limit": 0, "failcnt": 0}},
            "pids": {}, "blkio": {}, "hugetlb": {}
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn pressure() {
        let dir = tempfile::tempdir().unwrap();
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\n\
                    full avg10=0.10 avg60=0.00 avg300=0.00 total=99\n";
        let stats = container(dir.path(), &[], &[("memory.pressure", text)]).stats();
        let json = serde_json::to_value(&stats.memory.psi).unwrap();
        let expected = serde_json::json!({
            "some": {"avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 1234},
            "full": {"avg10": 0.1, "avg60": 0.0, "avg300": 0.0, "total": 99}
        });
        assert_eq!(json, expected);
        assert!(stats.cpu.psi.is_none());
    }
}
