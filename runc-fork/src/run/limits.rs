//! What the host side sets for a new process from outside: cgroup limits, rlimits, OOM score.

use anyhow::{Context, Result};
use oci_spec::runtime as oci;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use sysbox_cgroups::{Cgroup, Placeholder, device_rules};
use sysbox_kernel::ns::is_on_the_host;
use sysbox_kernel::schedule::{set_io_priority, set_scheduling};

use super::oom;
use crate::log;
use crate::plan::{Plan, ProcessPlan, Schedule};

/// Makes the container's cgroup. What is returned keeps it alive until init is in it.
pub fn create_cgroup(cgroup: &Cgroup, id: &str, spec: &oci::Spec) -> Result<Placeholder> {
    let limits = resources(spec)?.unwrap_or_default();
    cgroup.create_with(id, &limits).context("make the cgroup")
}

/// Sets the limits of the container's cgroup.
pub fn apply_to_cgroup(cgroup: &Cgroup, spec: &oci::Spec) -> Result<()> {
    match resources(spec)? {
        Some(resources) => cgroup.apply(&resources).context("set the limits (linux.resources)"),
        None => Ok(()),
    }
}

/// The resources of the spec, with all device rules.
fn resources(spec: &oci::Spec) -> Result<Option<oci::LinuxResources>> {
    let Some(mut resources) = spec.linux().as_ref().and_then(|l| l.resources().clone()) else {
        return Ok(None);
    };
    // The spec lists what it adds to the devices that every container may use.
    let rules = resources.devices().clone().unwrap_or_default();
    // In a container itself, the runtime may install no filter; the outer container's holds.
    let may_filter = is_on_the_host().context("look at the own user namespace")?;
    resources.set_devices(may_filter.then(|| {
        let mut rules = device_rules(&rules, &[]);
        rules.push(no_console_of_the_host());
        rules
    }));
    Ok(Some(resources))
}

/// Nobody opens character device 5:1. For whoever opens it, it is the *host's* console; a container's
/// /dev/console is a terminal of its own. Engines allow it all the same, and the mount broker makes
/// nodes of it, which those who build images need.
fn no_console_of_the_host() -> oci::LinuxDeviceCgroup {
    let mut rule = oci::LinuxDeviceCgroup::default();
    rule.set_allow(false)
        .set_typ(Some(oci::LinuxDeviceType::C))
        .set_major(Some(5))
        .set_minor(Some(1))
        .set_access(Some("rw".to_owned()));
    rule
}

/// Gives container root its part of the cgroup.
pub fn delegate_cgroup(cgroup: &Cgroup, plan: &Plan) -> Result<()> {
    let uid = plan.ids.host_uid(0).context("user id 0 of the container is not mapped")?;
    let gid = plan.ids.host_gid(0).context("group id 0 of the container is not mapped")?;
    cgroup.delegate(uid, gid).context("delegate the cgroup")
}

/// Resource limits, OOM score and scheduling of a process that has not started its program yet.
pub fn apply_to_process(pid: i32, process: &ProcessPlan, system_container: bool) -> Result<()> {
    let target = Pid::from_raw(pid);
    for (name, soft, hard) in &process.rlimits {
        let resource = resource(name)
            .with_context(|| format!("process.rlimits: RLIMIT_{name} is not known"))?;
        let limit = |value: u64| (value != u64::MAX).then_some(value);
        let new = Rlimit { current: limit(*soft), maximum: limit(*hard) };
        prlimit(target, resource, new).with_context(|| {
            format!("set RLIMIT_{name} to {soft}:{hard} (process.rlimits); raising a hard limit needs CAP_SYS_RESOURCE")
        })?;
    }
    oom::set_score(pid, process.oom_score_adj, system_container)?;
    apply_schedule(pid, &process.schedule)
}

/// With the host's rights, which scheduling in real time and the like need.
fn apply_schedule(pid: i32, wanted: &Schedule) -> Result<()> {
    let lists = [("initial", &wanted.initial_cpus), ("final", &wanted.final_cpus)];
    for (name, list) in lists {
        let Some(list) = list else { continue };
        if name == "initial" {
            log::debug(&format!("nsexec[{pid}]: affinity: {}", mask(list)));
        }
        sched_setaffinity(Pid::from_raw(pid), &cpu_set(list))
            .with_context(|| format!("set the CPUs {list:?} (process.execCPUAffinity.{name})"))?;
    }
    if wanted.final_cpus.is_none() && wanted.initial_cpus.is_none() {
        // Those that the runtime was bound to are not the container's, whose cgroup says which it has.
        let all: Vec<u32> = (0..1024).collect();
        let _ = sched_setaffinity(Pid::from_raw(pid), &cpu_set(&all));
    }
    if let Some(scheduler) = &wanted.scheduler {
        set_scheduling(pid, scheduler).with_context(|| {
            let hint = if scheduler.policy == DEADLINE {
                "; process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)"
            } else {
                ""
            };
            format!("set {scheduler:?} (process.scheduler){hint}")
        })?;
    }
    if let Some(priority) = wanted.io_priority {
        set_io_priority(pid, priority).context("set the I/O priority (process.ioPriority)")?;
    }
    Ok(())
}

/// `SCHED_DEADLINE`
const DEADLINE: u32 = 6;

fn cpu_set(cpus: &[u32]) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| (**cpu as usize) < CpuSet::MAX_CPU) {
        set.set(*cpu as usize);
    }
    set
}

/// A list of CPUs as a number with a bit for each, for the log.
fn mask(cpus: &[u32]) -> String {
    let bits = cpus.iter().filter(|cpu| **cpu < 128).fold(0_u128, |bits, cpu| bits | 1 << cpu);
    format!("{bits:#x}")
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        _ => return None,
    })
}
