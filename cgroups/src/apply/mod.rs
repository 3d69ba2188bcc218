//! Setting the limits of `linux.resources`.
//!
//! One table has a row per controller: its name in each version of cgroups, and for each version a
//! pure function that turns the OCI fields into [`Setting`]s (which file gets which text). Here is
//! what they have in common: find out where this host has the controller, write, and explain a
//! refusal.

mod cpu;
mod hugetlb;
mod io;
mod memory;
mod net;
mod pids;
mod rdma;
mod setting;
mod unified;

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use crate::cgroup::{Cgroup, Driver};
use crate::devices;
use crate::error::{Context, Error, Result};
use crate::file;
use crate::systemd;
use setting::{Setting, write_all};

/// Turns the fields of one controller into settings.
type Plan = fn(&LinuxResources) -> Result<Vec<Setting>>;

/// A controller in both versions.
struct Controller {
    v1: &'static str,
    v2: &'static str,
    plan_v1: Plan,
    plan_v2: Plan,
}

/// The controllers, in the order in which they are set.
const CONTROLLERS: [Controller; 9] = [
    Controller { v1: "pids", v2: "pids", plan_v1: pids::plan, plan_v2: pids::plan },
    Controller { v1: "memory", v2: "memory", plan_v1: memory::plan_v1, plan_v2: memory::plan_v2 },
    Controller { v1: "blkio", v2: "io", plan_v1: io::plan_v1, plan_v2: io::plan_v2 },
    Controller { v1: "cpu", v2: "cpu", plan_v1: cpu::plan_v1, plan_v2: cpu::plan_v2 },
    Controller { v1: "cpuset", v2: "cpuset", plan_v1: cpu::plan_cpuset, plan_v2: cpu::plan_cpuset },
    Controller {
        v1: "hugetlb",
        v2: "hugetlb",
        plan_v1: hugetlb::plan_v1,
        plan_v2: hugetlb::plan_v2,
    },
    Controller { v1: "rdma", v2: "rdma", plan_v1: rdma::plan, plan_v2: rdma::plan },
    Controller { v1: "net_cls", v2: "", plan_v1: net::plan_class, plan_v2: net::plan_class },
    Controller {
        v1: "net_prio",
        v2: "",
        plan_v1: net::plan_priorities,
        plan_v2: net::plan_priorities,
    },
];

/// The limits as `(file, value)`, of each controller in the version in which the cgroup has it, v2 where
/// in doubt; of a file with several names, each.
pub(crate) fn settings(
    cgroup: &Cgroup,
    resources: &LinuxResources,
) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for controller in &CONTROLLERS {
        let in_v1 = cgroup.v1_dir(controller.v1).is_some();
        let plan = if in_v1 { controller.plan_v1 } else { controller.plan_v2 };
        for setting in plan(resources)? {
            let mut next = Some(Box::new(setting));
            while let Some(setting) = next {
                pairs.extend(setting.files.into_iter().map(|file| (file, setting.value.clone())));
                next = setting.otherwise;
            }
        }
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    pairs.extend(unified.into_iter().map(|(file, value)| (file.clone(), value.clone())));
    Ok(pairs)
}

impl Cgroup {
    /// Sets the limits of `resources`, at creation or as an update. Fields that are absent (or
    /// zero, which engines send for "not given") are left as they are; `-1` means no limit.
    ///
    /// A controller is set in the v1 hierarchy where the host has it there, else in v2. v1 values
    /// are converted for v2 as runc does: CPU shares to a weight, memory plus swap to swap alone,
    /// block I/O weights to those of the scheduler in use. `unified` goes to the v2 directory.
    /// `devices` is the v1 device list, or an eBPF program on v2; see
    /// [`device_rules`](crate::device_rules) for what it should contain.
    ///
    /// `memory.kernel` and `memory.kernelTCP` are ignored, as in runc: the kernel has dropped them.
    ///
    /// # Errors
    /// Each names the field. [`Error::NoController`] where the host lacks the controller;
    /// [`Error::Unsupported`] for what the host's cgroup version cannot express; [`Error::Limit`]
    /// where the kernel refuses. Settings before the refused one stay set.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let available = self.v2_controllers()?;
        for controller in &CONTROLLERS {
            let v1 = self.v1_dir(controller.v1);
            let has = |name: &str| available.split_whitespace().any(|other| other == name);
            let v2 = self.unified().filter(|_| has(controller.v2));
            match (v1, v2) {
                (Some(dir), _) => write_all(dir, (controller.plan_v1)(resources)?)?,
                (None, Some(dir)) => write_all(dir, (controller.plan_v2)(resources)?)?,
                (None, None) => self.refuse_any(controller, resources)?,
            }
        }
        if let Some(rules) = resources.devices() {
            devices::install(self, rules)?;
        }
        let unified = resources.unified().iter().flatten();
        unified::write(self, unified)
    }

    /// [`Cgroup::apply`] for a container that runs: with the systemd driver, systemd is told first, so
    /// that it does not put back the limits that it knows from before.
    ///
    /// # Errors
    /// As [`Cgroup::apply`], and [`Error::Systemd`].
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if self.driver() == Driver::Systemd {
            // With its v1 device list systemd forbids everything before it allows again what it knows:
            // nobody is to open a device in between. Where freezing fails, that is a moment.
            let hold = self.v1_dir("devices").is_some() && !self.frozen().unwrap_or(true);
            let held = hold && self.freeze().is_ok();
            let told = systemd::update(self, resources);
            if held {
                self.thaw()?;
            }
            told?;
        }
        self.apply(resources)
    }

    /// Controllers of the container's v2 directory, as the kernel lists them.
    fn v2_controllers(&self) -> Result<String> {
        let Some(dir) = self.unified() else {
            return Ok(String::new());
        };
        file::read(dir, "cgroup.controllers").context("read the controllers of cgroup", dir)
    }

    /// Fails if `resources` asks for anything of a controller that is nowhere.
    fn refuse_any(&self, controller: &Controller, resources: &LinuxResources) -> Result<()> {
        let (plan, name) = match self.unified() {
            Some(_) if !controller.v2.is_empty() => (controller.plan_v2, controller.v2),
            _ => (controller.plan_v1, controller.v1),
        };
        let settings = plan(resources)?;
        let Some(first) = settings.iter().find(|setting| !setting.optional) else {
            return Ok(());
        };
        Err(Error::NoController {
            field: first.field.clone(),
            controller: name.to_owned(),
            path: self.unified().unwrap_or(Path::new(self.main_dir())).to_owned(),
        })
    }
}
