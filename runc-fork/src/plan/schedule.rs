//! Where, when and with which memory the kernel runs a process: `process.scheduler`, `ioPriority`
//! and `execCPUAffinity`, `linux.personality` and `linux.memoryPolicy`.

use anyhow::{Context, Result, ensure};
use oci_spec::runtime as oci;
use sysbox_kernel::schedule::SchedulingAttributes;

/// What was asked for; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// `process.scheduler`
    pub scheduler: Option<SchedulingAttributes>,
    /// `process.ioPriority` as ioprio_set(2) takes it.
    pub io_priority: Option<i32>,
    /// `process.execCPUAffinity.initial`: CPUs until the process is in the cgroup.
    pub initial_cpus: Option<Vec<u32>>,
    /// `process.execCPUAffinity.final`: CPUs from then on.
    pub final_cpus: Option<Vec<u32>>,
    /// `linux.personality` as personality(2) takes it.
    pub personality: Option<u32>,
    /// `linux.memoryPolicy`
    pub memory_policy: Option<MemoryPolicy>,
}

/// `linux.memoryPolicy` as set_mempolicy(2) takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*` with `MPOL_F_*`.
    pub mode: u32,
    /// Memory nodes.
    pub nodes: Vec<u32>,
}

impl Schedule {
    /// Reads the fields.
    pub fn new(process: &oci::Process, linux: Option<&oci::Linux>) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let cpus = |list: Option<&String>, field: &str| {
            let list = list.filter(|list| !list.is_empty());
            list.map(|list| number_list(list).with_context(|| format!("{field}: {list:?}")))
                .transpose()
        };
        let personality = linux.and_then(|l| l.personality().as_ref());
        if let Some(flags) = personality.and_then(|p| p.flags().as_ref()) {
            ensure!(flags.is_empty(), "linux.personality.flags: {flags:?} are not supported");
        }
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            initial_cpus: cpus(
                affinity.and_then(|a| a.initial().as_ref()),
                "process.execCPUAffinity.initial",
            )?,
            final_cpus: cpus(
                affinity.and_then(|a| a.cpu_affinity_final().as_ref()),
                "process.execCPUAffinity.final",
            )?,
            personality: personality.map(|p| match p.domain() {
                oci::LinuxPersonalityDomain::PerLinux => 0,
                oci::LinuxPersonalityDomain::PerLinux32 => 8,
            }),
            memory_policy: linux
                .and_then(|l| l.memory_policy().as_ref())
                .map(memory_policy)
                .transpose()?,
        })
    }
}

fn scheduler(wanted: &oci::Scheduler) -> Result<SchedulingAttributes> {
    use oci::{LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy};
    let policy = match wanted.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 0x01,
        Flag::SchedFlagReclaim => 0x02,
        Flag::SchedFlagDLOverrun => 0x04,
        Flag::SchedFlagKeepPolicy => 0x08,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let priority = wanted.priority().unwrap_or(0);
    let nice = wanted.nice().unwrap_or(0);
    ensure!((-20..=19).contains(&nice), "process.scheduler.nice: {nice} is not in -20..19");
    ensure!(
        priority == 0 || matches!(policy, 1 | 2),
        "process.scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
    );
    let times = [wanted.runtime(), wanted.deadline(), wanted.period()].map(|t| t.unwrap_or(0));
    ensure!(
        times == [0; 3] || policy == 6,
        "process.scheduler: runtime, deadline and period can only be specified for SCHED_DEADLINE"
    );
    Ok(SchedulingAttributes {
        policy,
        flags: wanted.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice,
        priority: u32::try_from(priority).context("process.scheduler.priority")?,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

/// `IOPRIO_PRIO_VALUE` of linux/ioprio.h.
fn io_priority(wanted: &oci::LinuxIOPriority) -> Result<i32> {
    let class = match wanted.class() {
        oci::IOPriorityClass::IoprioClassRt => 1,
        oci::IOPriorityClass::IoprioClassBe => 2,
        oci::IOPriorityClass::IoprioClassIdle => 3,
    };
    let priority = i32::try_from(wanted.priority()).ok().filter(|p| (0..=7).contains(p));
    let priority = priority.with_context(|| {
        format!("process.ioPriority.priority: {} is not in 0..7", wanted.priority())
    })?;
    Ok(class << 13 | priority)
}

fn memory_policy(wanted: &oci::LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    use oci::{MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode};
    let mode: u32 = match wanted.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &Flag| match flag {
        Flag::MpolFNumaBalancing => 1 << 13,
        Flag::MpolFRelativeNodes => 1 << 14,
        Flag::MpolFStaticNodes => 1 << 15,
    };
    let nodes = match wanted.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(list) => number_list(list).with_context(|| {
            format!("linux.memoryPolicy.nodes: invalid memory policy nodes {list:?}")
        })?,
        None => Vec::new(),
    };
    let flags = wanted.flags().iter().flatten().map(flag).fold(0, |all, one| all | one);
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// `0-3,5` as cpuset(7) writes lists.
fn number_list(text: &str) -> Result<Vec<u32>> {
    /// More than any kernel has of CPUs or memory nodes.
    const LIMIT: u32 = 8192;
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().context("is no list like 0-3,5");
        let (first, last) = (number(first)?, number(last)?);
        ensure!(first <= last && last < LIMIT, "is no list like 0-3,5");
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(process: &str, linux: &str) -> Result<Schedule> {
        let process = format!(r#"{{"user":{{"uid":0,"gid":0}},"args":["a"],"cwd":"/",{process}}}"#);
        let process = serde_json::from_str(&process).unwrap();
        let linux: oci::Linux = serde_json::from_str(linux).unwrap();
        Schedule::new(&process, Some(&linux))
    }

    #[test]
    fn every_field() {
        let plan = schedule(
            r#""scheduler":{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_RESET_ON_FORK"]},
               "ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":4},
               "execCPUAffinity":{"initial":"0","final":"0-2,5"}"#,
            r#"{"personality":{"domain":"LINUX32"},
                "memoryPolicy":{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}}"#,
        )
        .unwrap();
        let scheduler = plan.scheduler.unwrap();
        assert_eq!((scheduler.policy, scheduler.nice, scheduler.flags), (3, 5, 1));
        assert_eq!(plan.io_priority, Some(3 << 13 | 4));
        assert_eq!(plan.final_cpus, Some(vec![0, 1, 2, 5]));
        assert_eq!(plan.personality, Some(8));
        assert_eq!(plan.memory_policy, Some(MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![0] }));
    }

    #[test]
    fn what_cannot_be_names_its_field() {
        for (process, linux, field) in [
            (r#""scheduler":{"policy":"SCHED_OTHER","priority":5}"#, "{}", "scheduler.priority"),
            (r#""scheduler":{"policy":"SCHED_OTHER","nice":20}"#, "{}", "scheduler.nice"),
            (
                r#""ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}"#,
                "{}",
                "ioPriority.priority",
            ),
            (r#""execCPUAffinity":{"final":"3-1"}"#, "{}", "execCPUAffinity.final"),
            (
                r#""terminal":false"#,
                r#"{"personality":{"domain":"LINUX","flags":["X"]}}"#,
                "personality.flags",
            ),
        ] {
            let error = format!("{:#}", schedule(process, linux).unwrap_err());
            assert!(error.contains(field), "{error}");
        }
    }
}
