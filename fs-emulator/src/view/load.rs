//! Load averages of a container: the kernel's own formula over the container's own tasks.
//!
//! The kernel counts running and uninterruptible tasks every five seconds and lets old samples
//! decay. Counting the threads of a container means to read a file for each, so it is done only
//! when it can matter: a container that used no CPU time since the last sample is still as idle as
//! it was; one whose tasks seldom had to wait (pressure stall information says so) had on average
//! as many running tasks as it used CPUs, and those that waited. Only with tasks that wait more, or
//! without that information, the threads are counted. In most systems that do nothing something
//! wakes up every few seconds all the same; those are looked at, and counted, less often.

use serde::{Deserialize, Serialize};

use super::cgroup::{Hierarchy, Level};
use super::host::{Host, SECOND, boottime};
use super::walk::{self, Tasks};
use crate::container::Container;

/// Time between samples, nanoseconds (`LOAD_FREQ` of the kernel).
pub const PERIOD: u64 = 5 * SECOND;
/// One as the kernel's fixed-point number (`FIXED_1`).
const ONE: u64 = 1 << 11;
/// Decay over 1, 5 and 15 minutes per sample (`EXP_1`, `EXP_5`, `EXP_15`).
const DECAY: [u64; 3] = [1884, 2014, 2037];
/// A container that is busy is counted at least every so many samples: tasks that hang
/// uninterruptibly without any I/O show nowhere else.
const COUNT_EVERY: u32 = 12;
/// The same of one that is next to idle and in which nothing hung so far: every five minutes.
const COUNT_SELDOM: u32 = 60;
/// One that is next to idle is asked for tasks that wait at every so many samples.
const LOOK_EVERY: u32 = 3;
/// Next to idle is who used a smaller part of a CPU than this.
const LITTLE: u64 = 100;
/// Part of the time in which some task may wait before the threads are counted: in less, hardly ever two wait
/// at once.
const SELDOM: u64 = ONE / 10;
/// Missed samples after which all averages are as good as zero (two hours).
const FORGOTTEN: u64 = 1440;

/// Load averages and what the next sample needs.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    averages: [u64; 3],
    last: Option<Sample>,
    tasks: Tasks,
    since_count: u32,
    /// Samples from one count to the next as long as the container is next to idle.
    #[serde(default)]
    patience: u32,
    #[serde(default)]
    since_look: u32,
    /// Part of the time in which some task waited, as the kernel's fixed-point number.
    #[serde(default)]
    waiting: u64,
}

/// Sums of a container's cgroup.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at: u64,
    /// CPU time used, microseconds.
    pub used: u64,
    /// Time in which some task waited for CPU, I/O or memory, microseconds; none without pressure
    /// stall information.
    pub stalled: Option<u64>,
    /// When that was asked for, as `at`.
    #[serde(default)]
    pub looked: u64,
}

impl Load {
    /// Averages over 1, 5 and 15 minutes in hundredths, rounded as the kernel does.
    pub fn averages(&self) -> [u64; 3] {
        self.averages.map(|load| ((load + ONE / 200) * 100) >> 11)
    }

    /// Averages over 1, 5 and 15 minutes as sysinfo(2) tells them: 65536 is one.
    pub fn fixed_point(&self) -> [u64; 3] {
        self.averages.map(|load| load << 5)
    }

    /// Tasks at the last sample.
    pub fn tasks(&self) -> Tasks {
        self.tasks
    }

    /// The last sample, if what it told of waiting tasks still counts at the time `at`, by when `used` was
    /// used: nothing ran, so no task can have begun to wait either, or very little did.
    fn rests(&mut self, at: u64, used: u64) -> Option<Sample> {
        let last = self.last?;
        let used = used.saturating_sub(last.used) * 1000;
        let little = used < at.saturating_sub(last.at) / LITTLE;
        let seldom = self.since_look + 1 < LOOK_EVERY && self.waiting < SELDOM;
        let rests = used == 0 || (little && seldom);
        self.since_look = if rests { self.since_look + 1 } else { 0 };
        rests.then_some(last)
    }

    /// Takes a sample; `count` is called if the threads must be counted.
    pub fn take(&mut self, sample: Sample, count: impl FnOnce() -> Tasks) {
        let Some(last) = self.last.replace(sample) else {
            self.tasks = count();
            return;
        };
        let interval = sample.at.saturating_sub(last.at).max(1);
        let used = sample.used.saturating_sub(last.used) * 1000;
        let stalled = sample.stalled.zip(last.stalled).map(|(a, b)| a.saturating_sub(b) * 1000);
        let was_idle = self.tasks == Tasks::default();
        self.since_count += u32::from(used > 0);
        let since_look = sample.looked.saturating_sub(last.looked);
        // A task may have hung for months.
        match stalled.map(|stalled| stalled.saturating_mul(ONE).checked_div(since_look)) {
            Some(Some(waiting)) => self.waiting = waiting,
            // Not asked for this time.
            Some(None) => {}
            None => self.waiting = if used < interval / LITTLE { 0 } else { ONE },
        }
        let seldom_waited = self.waiting < SELDOM;
        let little = used < interval / LITTLE;
        let patience = if little { self.patience.max(COUNT_EVERY) } else { COUNT_EVERY };
        let active = if used == 0 && was_idle {
            0
        } else if seldom_waited && self.tasks.blocked == 0 && self.since_count < patience {
            self.tasks = Tasks { running: (used + interval / 2) / interval, blocked: 0 };
            // A hundredth of the time is noise: tasks wait a little whenever they wake up.
            used * ONE / interval + if self.waiting < ONE / 100 { 0 } else { self.waiting }
        } else {
            self.tasks = count();
            self.since_count = 0;
            let nothing = little && self.tasks == Tasks::default();
            self.patience = if nothing { (4 * patience).min(COUNT_SELDOM) } else { 0 };
            (self.tasks.running + self.tasks.blocked) * ONE
        };
        let periods = ((interval + PERIOD / 2) / PERIOD).max(1);
        for (load, decay) in self.averages.iter_mut().zip(DECAY) {
            *load = match periods {
                0..FORGOTTEN => (0..periods).fold(*load, |load, _| decayed(load, decay, active)),
                _ => active,
            };
        }
    }
}

/// One step of the damped mean (`calc_load` of the kernel).
fn decayed(load: u64, decay: u64, active: u64) -> u64 {
    let sum = load * decay + active * (ONE - decay);
    let rounded = if active >= load { sum + ONE - 1 } else { sum };
    rounded / ONE
}

/// Takes a sample of a container.
pub fn sample(host: &Host, container: &Container) {
    let at = boottime();
    let v1 = |controller| container.hierarchies.iter().find(|h| h.has(controller));
    let unified = container.hierarchies.iter().find(|h| h.is_v2());
    let Some(used) = unified.or_else(|| v1("cpuacct")).and_then(Hierarchy::cpu_used) else {
        return;
    };
    let tree = unified.or_else(|| v1("pids"));
    let own = || tree?.levels("").into_iter().next();
    // Counting takes time and readers must not wait for it, so this works on a copy; nobody else
    // writes.
    let lock = || container.load.lock().unwrap_or_else(|e| e.into_inner());
    let mut load = *lock();
    let (stalled, looked) = match load.rests(at, used) {
        Some(last) => (last.stalled, last.looked),
        None => (own().and_then(|own| pressure(&own)), at),
    };
    load.take(Sample { at, used, stalled, looked }, || {
        own().map(|own| walk::count(host, &own, unified.is_some())).unwrap_or_default()
    });
    *lock() = load;
}

/// The time in which some task of a cgroup waited, microseconds.
fn pressure(own: &Level) -> Option<u64> {
    ["cpu", "io", "memory"]
        .iter()
        .try_fold(0, |sum, kind| Some(sum + stall_time(&own.text(&format!("{kind}.pressure"))?)?))
}

/// The `total=` of the line "some" of a pressure file, microseconds.
fn stall_time(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    some.split("total=").nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, used: u64, stalled: u64) -> Sample {
        Sample { at: at * PERIOD, used, stalled: Some(stalled), looked: at * PERIOD }
    }

    fn no_count() -> Tasks {
        panic!("threads must not be counted");
    }

    #[test]
    fn one_busy_task_goes_to_one() {
        let mut load = Load::default();
        load.take(sample(0, 0, 0), Tasks::default);
        for i in 1..=12 {
            load.take(sample(i, i * 5_000_000, 0), || Tasks { running: 1, blocked: 0 });
        }
        // 1 - e^-1 after a minute, as a machine shows.
        assert!((62..=64).contains(&load.averages()[0]), "{:?}", load.averages());
        for i in 13..=1000 {
            load.take(sample(i, i * 5_000_000, 0), || Tasks { running: 1, blocked: 0 });
        }
        assert_eq!(load.averages(), [100, 100, 100]);
        assert_eq!(load.tasks().running, 1);
    }

    #[test]
    fn an_idle_container_decays_to_zero_without_counting() {
        let mut load = Load { averages: [ONE, ONE, ONE], ..Load::default() };
        load.take(sample(0, 7, 0), Tasks::default);
        for i in 1..=2000 {
            load.take(sample(i, 7, 0), no_count);
        }
        assert_eq!(load.averages(), [0, 0, 0]);
    }

    #[test]
    fn waiting_tasks_are_counted() {
        let mut load = Load::default();
        load.take(sample(0, 0, 0), Tasks::default);
        load.take(sample(1, 5_000_000, 5_000_000), || Tasks { running: 4, blocked: 1 });
        assert_eq!(load.averages[0], (5 * ONE * (ONE - DECAY[0])).div_ceil(ONE));
        // A task that hangs uses no time and yet counts on.
        load.take(sample(2, 5_000_000, 5_000_000), || Tasks { running: 0, blocked: 1 });
        assert_eq!(load.tasks().blocked, 1);
        load.take(sample(3, 5_000_000, 5_000_000), Tasks::default);
        load.take(sample(4, 5_000_000, 5_000_000), no_count);
    }

    #[test]
    fn one_that_is_next_to_idle_is_looked_at_and_counted_less_often() {
        let mut load = Load::default();
        let (mut looks, mut counts) = (0, 0);
        for i in 0..240 {
            let (at, used) = (i * PERIOD, i * 1000);
            looks += u64::from(load.rests(at, used).is_none());
            load.take(Sample { at, used, stalled: Some(0), looked: at }, || {
                counts += 1;
                Tasks::default()
            });
        }
        assert_eq!(looks, 240 / u64::from(LOOK_EVERY));
        // At first, after a minute, four more, and every five.
        assert_eq!(counts, 5);
        // As soon as it does something it is one like all others.
        let at = 240 * PERIOD;
        assert!(load.rests(at, 500_000).is_none());
        load.since_count = COUNT_EVERY;
        let mut counted = false;
        load.take(Sample { at, used: 500_000, stalled: Some(0), looked: at }, || {
            counted = true;
            Tasks { running: 0, blocked: 1 }
        });
        assert!(counted);
        assert_eq!(load.tasks().blocked, 1);
    }

    #[test]
    fn who_waits_seldom_counts_for_that_part() {
        let mut load = Load::default();
        load.take(sample(0, 0, 0), Tasks::default);
        // Half of the time on a CPU, a twentieth waiting for one.
        for i in 1..=1000 {
            load.since_count = 0;
            load.take(sample(i, i * 2_500_000, i * 250_000), no_count);
        }
        assert_eq!(load.averages(), [55, 55, 55]);
        // Asked for after three samples: the same part of the time.
        let last = load.last.unwrap();
        for i in 1001..=1002 {
            let stays = Sample { at: i * PERIOD, used: i * 2_500_000, ..last };
            load.take(stays, no_count);
        }
        load.take(sample(1003, 1003 * 2_500_000, 1003 * 250_000), no_count);
        assert_eq!(load.averages(), [55, 55, 55]);
    }

    #[test]
    fn months_of_waiting_are_no_more_than_some_tasks() {
        let mut load = Load::default();
        load.take(sample(0, 0, 0), Tasks::default);
        // Half a year, in which CPU, I/O and memory were waited for all the time.
        let periods = 182 * 24 * 720;
        load.take(sample(periods, 1000, 3 * periods * 5_000_000), || Tasks {
            running: 1,
            blocked: 1,
        });
        assert_eq!(load.averages(), [200, 200, 200]);
    }

    #[test]
    fn a_long_pause_counts_as_many_samples() {
        let mut load = Load { averages: [ONE, ONE, ONE], ..Load::default() };
        load.take(sample(0, 0, 0), Tasks::default);
        load.take(sample(12, 0, 0), no_count);
        assert!((35..=38).contains(&load.averages()[0]), "{:?}", load.averages());
        load.take(sample(1_000_000, 0, 0), no_count);
        assert_eq!(load.averages(), [0, 0, 0]);
    }

    #[test]
    fn pressure_text() {
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 total=7\n";
        assert_eq!(stall_time(text), Some(42));
        assert_eq!(stall_time(""), None);
    }
}
