//! `sysbox top`: what the containers use, again and again.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use sysbox_mgr::api::proto::Container;

use super::client::Client;
use super::report::{bytes, columns, duration, print, row, short};

/// Cursor to the top left, and nothing below it: ECMA-48 CUP and ED.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Prints until it has looked `count` times, or is interrupted.
pub fn run(interval: f64, count: Option<u64>, json: bool) -> anyhow::Result<()> {
    ensure!((0.1..=3600.0).contains(&interval), "--interval is from 0.1 to 3600 seconds");
    let interval = Duration::from_secs_f64(interval);
    let clear = if std::io::stdout().is_terminal() && !json { CLEAR } else { "" };
    let mut client = Client::connect()?;
    let mut before = Sample::take(&client)?;
    let mut looks = 0;
    while count.is_none_or(|count| looks < count) {
        std::thread::sleep(interval);
        // A manager that was restarted meanwhile is found again.
        let now = Sample::take(&client).or_else(|_| {
            client = Client::connect()?;
            Sample::take(&client)
        })?;
        let lines = now.since(&before);
        print(&if json { as_json(&lines) } else { clear.to_owned() + &as_table(&lines) })?;
        before = now;
        looks += 1;
    }
    Ok(())
}

/// The containers at one moment.
struct Sample {
    at: Instant,
    containers: Vec<Container>,
}

/// A container, and the part of one CPU that it has used.
struct Line<'a> {
    container: &'a Container,
    cpu: f64,
}

impl Sample {
    fn take(client: &Client) -> anyhow::Result<Self> {
        Ok(Self { at: Instant::now(), containers: client.list("")? })
    }

    /// Those that live, the busiest first.
    fn since(&self, before: &Self) -> Vec<Line<'_>> {
        let used = |c: &Container| c.usage.as_ref().map_or(0, |usage| usage.cpu_ns);
        let then: HashMap<(&str, u32), u64> =
            before.containers.iter().map(|c| ((c.id.as_str(), c.key), used(c))).collect();
        let passed = self.at.duration_since(before.at).as_nanos().max(1) as f64;
        let mut lines: Vec<_> = self
            .containers
            .iter()
            .filter(|container| container.usage.is_some())
            .map(|container| {
                let known = then.get(&(container.id.as_str(), container.key));
                let before = known.copied().unwrap_or(used(container));
                let cpu = used(container).saturating_sub(before) as f64 / passed;
                Line { container, cpu }
            })
            .collect();
        lines.sort_by(|a, b| b.cpu.total_cmp(&a.cpu));
        lines
    }
}

fn as_table(lines: &[Line<'_>]) -> String {
    let mut table = vec![row(["NAME", "ID", "STATE", "CPU", "MEMORY", "LIMIT", "TASKS", "UPTIME"])];
    for Line { container, cpu } in lines {
        let Some(usage) = &container.usage else { continue };
        let limit = match usage.memory_limit_bytes {
            0 => String::new(),
            limit => bytes(limit),
        };
        table.push(row([
            &container.name,
            short(&container.id),
            &container.state,
            &format!("{:.1}%", cpu * 100.0),
            &bytes(usage.memory_bytes),
            &limit,
            &usage.tasks.to_string(),
            &duration(container.uptime_ms),
        ]));
    }
    columns(&table)
}

/// One line a look, so that a program can read them as they come.
fn as_json(lines: &[Line<'_>]) -> String {
    let line = |l: &Line<'_>| {
        json!({
            "id": l.container.id, "name": l.container.name, "state": l.container.state,
            "cpu": l.cpu, "usage": l.container.usage, "uptime_ms": l.container.uptime_ms,
        })
    };
    format!("{}\n", lines.iter().map(line).collect::<serde_json::Value>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sysbox_mgr::api::proto::Usage;

    fn sample(at: Instant, used: &[(&str, u64)]) -> Sample {
        let container = |(id, cpu_ns): &(&str, u64)| Container {
            id: (*id).to_owned(),
            usage: Some(Usage { cpu_ns: *cpu_ns, ..Default::default() }),
            ..Default::default()
        };
        Sample { at, containers: used.iter().map(container).collect() }
    }

    #[test]
    fn the_busiest_comes_first_and_a_new_one_has_used_nothing_yet() {
        let then = Instant::now();
        let before = sample(then, &[("a", 1_000_000_000), ("b", 0)]);
        let used = [("a", 1_500_000_000), ("b", 1_000_000_000), ("c", 9_000_000_000)];
        let now = sample(then + Duration::from_secs(1), &used);
        let lines = now.since(&before);
        let got: Vec<_> = lines.iter().map(|l| (l.container.id.as_str(), l.cpu)).collect();
        assert_eq!(got, [("b", 1.0), ("a", 0.5), ("c", 0.0)]);
    }
}
