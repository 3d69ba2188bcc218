//! CPUs of a container: which ones it sees, and the time spent on each.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::View;
use super::cgroup::Level;
use super::host::parse_cpu_list;

/// Cgroups of one container whose CPU time is followed at once.
const MAX_ACCOUNTS: usize = 64;

/// The CPUs that the reader sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// Their numbers, which are the host's, ascending, never empty.
    pub cpus: Vec<u32>,
    /// Index of the level that makes them so few.
    level: usize,
}

/// Time spent by a CPU (or all), microseconds since the container was created.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // named after the columns of proc_stat(5)
pub struct CpuTime {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
}

/// CPU time of all CPUs that the container ever saw, and of each that it sees now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTimes {
    /// Sum of all.
    pub total: CpuTime,
    /// Each visible CPU by its number.
    pub cpus: Vec<(u32, CpuTime)>,
}

impl View<'_> {
    /// The CPUs that the reader sees: its cpuset, cut to what its quota can keep busy.
    pub fn visible_cpus(&self) -> Visible {
        let (cpu, cpuset) = (self.levels("cpu"), self.levels("cpuset"));
        let mut cpus = self.host.online_cpus();
        let mut quota = usize::MAX;
        let (mut count, mut level) = (usize::MAX, 0);
        for i in 0..cpu.list.len().max(cpuset.list.len()) {
            if let Some(set) = cpuset.list.get(i).and_then(|l| cpuset_of(l, cpuset.v2)) {
                cpus = set;
            }
            if let Some(busy) = cpu.list.get(i).and_then(|l| quota_of(l, cpu.v2)) {
                quota = quota.min(busy);
            }
            if cpus.len().min(quota) < count {
                (count, level) = (cpus.len().min(quota), i);
            }
        }
        cpus.truncate(count.max(1));
        Visible { cpus, level }
    }

    /// CPU time of the cgroup whose limit makes the visible CPUs so few, spread over them.
    pub fn cpu_times(&self, visible: &Visible) -> CpuTimes {
        let unified = self.unified();
        let level = unified.get(visible.level).or(unified.first());
        let used = level
            .and_then(used_v2)
            .or_else(|| self.levels("cpuacct").list.first().and_then(used_v1));
        let name = level.map_or("", Level::name);
        let mut accounts = self.container.accounts.lock().unwrap_or_else(|e| e.into_inner());
        accounts.update(name, self.uptime() / 1000, used.unwrap_or_default(), &visible.cpus)
    }
}

/// CPUs of a level's cpuset.
fn cpuset_of(level: &Level, v2: bool) -> Option<Vec<u32>> {
    let files: &[&str] =
        if v2 { &["cpuset.cpus.effective"] } else { &["cpuset.effective_cpus", "cpuset.cpus"] };
    let sets = files.iter().filter_map(|file| Some(parse_cpu_list(&level.text(file)?)));
    sets.into_iter().find(|set| !set.is_empty())
}

/// CPUs that a level's quota can keep busy, rounded up.
fn quota_of(level: &Level, v2: bool) -> Option<usize> {
    let (quota, period) = if v2 {
        let text = level.text("cpu.max")?;
        let (quota, period) = text.trim().split_once(' ')?;
        (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
    } else {
        // -1, "no quota", does not parse.
        (level.number("cpu.cfs_quota_us")?, level.number("cpu.cfs_period_us")?)
    };
    (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
}

/// CPU time of a v2 cgroup with all below.
fn used_v2(level: &Level) -> Option<CpuTime> {
    let text = level.text("cpu.stat")?;
    let value = |key| super::cgroup::value_of(&text, key);
    // Since 6.12 the time of niced tasks is told apart; user_usec includes it.
    let nice = value("nice_usec").unwrap_or(0);
    let user = value("user_usec")?.saturating_sub(nice);
    Some(CpuTime { user, nice, system: value("system_usec")?, idle: 0 })
}

/// CPU time of a v1 cgroup with all below.
fn used_v1(level: &Level) -> Option<CpuTime> {
    let (user, system) = (level.number("cpuacct.usage_user")?, level.number("cpuacct.usage_sys")?);
    Some(CpuTime { user: user / 1000, nice: 0, system: system / 1000, idle: 0 })
}

/// CPU time of the cgroups of a container, by the level's name, so that no number that a reader
/// saw ever goes backwards, also when the number of visible CPUs changes.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Accounts(HashMap<String, Account>);

impl Accounts {
    /// Takes what the cgroup used since the last call (by its sums `used`, at `uptime`
    /// microseconds) and spreads it over the `visible` CPUs.
    pub fn update(&mut self, name: &str, uptime: u64, used: CpuTime, visible: &[u32]) -> CpuTimes {
        if !self.0.contains_key(name) && self.0.len() >= MAX_ACCOUNTS {
            // Keep the container's own; of the others the one that was not read for longest.
            let others = self.0.iter().filter(|(n, _)| !n.is_empty());
            let oldest = others.min_by_key(|(_, a)| a.uptime).map(|(n, _)| n.clone());
            oldest.map(|n| self.0.remove(&n));
        }
        self.0.entry(name.to_owned()).or_default().update(uptime, used, visible)
    }
}

/// CPU time of one cgroup as shown so far.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Account {
    uptime: u64,
    used: CpuTime,
    cpus: BTreeMap<u32, Shown>,
}

/// What was shown of one CPU.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Shown {
    time: CpuTime,
    /// How long it has been visible.
    lived: u64,
}

impl Account {
    fn update(&mut self, uptime: u64, used: CpuTime, visible: &[u32]) -> CpuTimes {
        // A CPU that appears (at the first call: all) counts as having idled all the time before.
        for &cpu in visible {
            let idle = || Shown { lived: self.uptime, ..Shown::default() };
            self.cpus.entry(cpu).or_insert_with(idle);
        }
        let elapsed = uptime.saturating_sub(self.uptime);
        let share = |new: u64, old: u64, i: usize| {
            let (new, n) = (new.saturating_sub(old), visible.len() as u64);
            new / n + u64::from((i as u64) < new % n)
        };
        let shown = self.cpus.iter_mut().filter(|(cpu, _)| visible.contains(cpu));
        for (i, (_, cpu)) in shown.enumerate() {
            cpu.time.user += share(used.user, self.used.user, i);
            cpu.time.nice += share(used.nice, self.used.nice, i);
            cpu.time.system += share(used.system, self.used.system, i);
            cpu.lived += elapsed;
            let busy = cpu.time.user + cpu.time.nice + cpu.time.system;
            // Never backwards, also if the sums run ahead of the clock for a moment.
            cpu.time.idle = cpu.time.idle.max(cpu.lived.saturating_sub(busy));
        }
        self.uptime = self.uptime.max(uptime);
        self.used = CpuTime {
            user: self.used.user.max(used.user),
            nice: self.used.nice.max(used.nice),
            system: self.used.system.max(used.system),
            idle: 0,
        };
        let mut total = CpuTime::default();
        for cpu in self.cpus.values() {
            total.user += cpu.time.user;
            total.nice += cpu.time.nice;
            total.system += cpu.time.system;
            total.idle += cpu.time.idle;
        }
        let cpus = visible.iter().filter_map(|cpu| Some((*cpu, self.cpus.get(cpu)?.time)));
        CpuTimes { total, cpus: cpus.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(user: u64, system: u64) -> CpuTime {
        CpuTime { user, system, ..CpuTime::default() }
    }

    #[test]
    fn time_is_spread_and_the_rest_is_idle() {
        let mut account = Account::default();
        let times = account.update(1000, used(301, 100), &[0, 3]);
        assert_eq!(times.cpus[0].1, CpuTime { user: 151, nice: 0, system: 50, idle: 799 });
        assert_eq!(times.cpus[1], (3, CpuTime { user: 150, nice: 0, system: 50, idle: 800 }));
        assert_eq!(times.total, CpuTime { user: 301, nice: 0, system: 100, idle: 1599 });
    }

    #[test]
    fn nothing_goes_backwards_when_cpus_come_and_go() {
        let mut account = Account::default();
        let mut last = account.update(1000, used(900, 0), &[0]);
        let steps: [(u64, u64, &[u32]); 5] = [
            (2000, 1500, &[0, 1, 2, 3]),
            (3000, 9500, &[0, 2]),
            (3000, 9000, &[0, 2]),
            (2500, 9500, &[2]),
            (9000, 9500, &[1, 2, 3]),
        ];
        for (uptime, user, visible) in steps {
            let next = account.update(uptime, used(user, 0), visible);
            assert_eq!(next.cpus.len(), visible.len());
            for (cpu, b) in &next.cpus {
                let Some((_, a)) = last.cpus.iter().find(|(last, _)| last == cpu) else { continue };
                assert!(b.user >= a.user && b.idle >= a.idle, "{a:?} then {b:?}");
            }
            assert!(next.total.user >= last.total.user && next.total.idle >= last.total.idle);
            last = next;
        }
    }

    #[test]
    fn many_cgroups_do_not_fill_the_memory() {
        let mut accounts = Accounts::default();
        accounts.update("", 1, used(0, 0), &[0]);
        for i in 0..1000 {
            accounts.update(&format!("{i}/"), 2 + i, used(0, 0), &[0]);
        }
        assert_eq!(accounts.0.len(), MAX_ACCOUNTS);
        assert!(accounts.0.contains_key("") && accounts.0.contains_key("999/"));
    }
}
