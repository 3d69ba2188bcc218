//! `events`: statistics of a container, once or again and again, and kills for lack of memory; a
//! line of JSON each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use sysbox_cgroups::Stats;
use sysbox_cgroups::rdt::RdtStats;

use super::Global;
use crate::state::{Directory, State, Status};

/// display container events such as OOM notifications, and cpu, memory and I/O usage statistics
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// display the container's stats then exit
    #[arg(long)]
    pub stats: bool,
    /// set the stats collection interval, e.g. 5s
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// container id
    pub id: String,
}

/// A line, with runc's fields in its order.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: RdtStats,
}

impl Data {
    fn of(directory: &Directory, state: &State) -> Self {
        let group = directory.rdt().ok().flatten();
        let intel_rdt = group.map(|group| group.stats()).unwrap_or_default();
        Self { stats: state.cgroup.stats(), intel_rdt }
    }
}

impl Event<'_> {
    fn say(&self) -> Result<()> {
        super::say(serde_json::to_string(self)?)
    }
}

/// How often a container is looked at between two lines of statistics.
const TICK: Duration = Duration::from_millis(100);

/// Runs the command: until the container ends, or once with `--stats`.
pub fn run(global: &Global, args: &EventsArgs) -> Result<()> {
    let directory = Directory::new(&global.root, &args.id)?;
    let interval = interval(&args.interval)?;
    let state = directory.load()?;
    ensure!(
        state.status(&directory) != Status::Stopped,
        "container with id {} is not running",
        args.id
    );
    let mut kills = oom_kills(&state);
    let mut next = Instant::now() + if args.stats { Duration::ZERO } else { interval };
    loop {
        if Instant::now() >= next {
            Event { kind: "stats", id: &args.id, data: Some(Data::of(&directory, &state)) }
                .say()?;
            next += interval;
        }
        if args.stats || state.status(&directory) == Status::Stopped {
            return Ok(());
        }
        std::thread::sleep(TICK.min(interval));
        let now = oom_kills(&state);
        if now > kills {
            Event { kind: "oom", id: &args.id, data: None }.say()?;
        }
        kills = now;
    }
}

/// How many processes the kernel has killed for lack of memory: `oom_kill` of `memory.events`
/// (v2) or `memory.oom_control` (v1). 0 where there is no such controller.
fn oom_kills(state: &State) -> u64 {
    let unified = state.cgroup.unified().map(|dir| dir.join("memory.events"));
    let v1 = state.cgroup.v1().find(|(controller, _)| *controller == "memory");
    let v1 = v1.map(|(_, dir)| dir.join("memory.oom_control"));
    let count = |path: PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    };
    [v1, unified].into_iter().flatten().find_map(count).unwrap_or(0)
}

/// A duration as Go writes it: `5s`, `500ms`, `1m30s`, `1.5s`.
fn interval(text: &str) -> Result<Duration> {
    const UNITS: [(&str, f64); 6] =
        [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("--interval: {text:?} is no duration (like 500ms, 5s, 1m30s)");
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).with_context(wrong)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).with_context(wrong)?;
        seconds += number.parse::<f64>().with_context(wrong)? * factor;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds).with_context(wrong)?;
    ensure!(!duration.is_zero(), "duration interval must be greater than 0");
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, milliseconds) in
            [("5s", 5000), ("250ms", 250), ("1m30s", 90_000), ("1.5s", 1500)]
        {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for wrong in ["5", "0s", "", "s", "5 s", "-1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
