//! `sysbox`: what the user asks about the system containers of this host.

mod doctor;

use std::io::{self, Write};

use anyhow::bail;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use sysbox_ipc::proto::{ContainerStatus, IdMapping, MgrStatus};
use sysbox_ipc::{FsClient, MgrClient};

/// Shows the system containers of this host, and what they need.
#[derive(Debug, Parser)]
#[command(name = "sysbox", version)]
struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The containers
    Ps,
    /// All that is known of one container, as JSON
    Inspect {
        /// Its id, or the beginning of it
        id: String,
    },
    /// The directories that hold the stores of inner engines
    Volumes,
    /// Versions of this program and of the daemons
    Version,
    /// What this host has and lacks, and what to do about it
    Doctor,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let report = match &arguments.command {
        Command::Ps => ps(&status()?),
        Command::Inspect { id } => inspect(&status()?, id)?,
        Command::Volumes => volumes(&status()?),
        Command::Version => version(),
        Command::Doctor => return doctor::run(arguments.json),
    };
    report.print(arguments.json)
}

fn status() -> anyhow::Result<MgrStatus> {
    Ok(MgrClient::connect()?.status()?)
}

/// What is printed: a table, or the same as JSON.
#[derive(Debug)]
struct Report {
    json: Value,
    /// The first line is the head; empty if there is only JSON.
    table: Vec<Vec<String>>,
}

impl Report {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json || self.table.is_empty() {
            format!("{:#}\n", self.json)
        } else {
            columns(&self.table)
        };
        match io::stdout().write_all(text.as_bytes()) {
            // `sysbox ps | head`
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// Lines with columns as wide as their widest cell.
fn columns(table: &[Vec<String>]) -> String {
    let width = |n: usize| table.iter().filter_map(|row| row.get(n)).map(String::len).max();
    let mut text = String::new();
    for row in table {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            line.push_str(&format!("{cell:<width$}   ", width = width(n).unwrap_or(0)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Host ids, as `first-last`.
fn ids(mappings: &[IdMapping]) -> String {
    let range = |m: &IdMapping| format!("{}-{}", m.host_id, m.host_id + m.size.saturating_sub(1));
    let ranges: Vec<String> = mappings.iter().map(range).collect();
    if ranges.is_empty() { "-".to_owned() } else { ranges.join(",") }
}

fn pid(container: &ContainerStatus) -> String {
    match container.init_pid {
        0 => "-".to_owned(),
        pid => pid.to_string(),
    }
}

/// Ids as engines show them.
fn short(id: &str) -> &str {
    let is_long = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_long { &id[..12] } else { id }
}

fn describe(container: &ContainerStatus) -> Value {
    let volume =
        |v: &sysbox_ipc::proto::Volume| json!({ "source": v.source, "destination": v.destination });
    let mapping = |m: &IdMapping| json!({ "container_id": m.container_id, "host_id": m.host_id, "size": m.size });
    json!({
        "id": container.id,
        "state": container.state,
        "pid": container.init_pid,
        "uid_mappings": container.uid_mappings.iter().map(mapping).collect::<Vec<_>>(),
        "volumes": container.volumes.iter().map(volume).collect::<Vec<_>>(),
    })
}

fn ps(status: &MgrStatus) -> Report {
    let mut table = vec![row(["ID", "STATE", "PID", "HOST IDS", "VOLUMES"])];
    table.extend(status.containers.iter().map(|c| {
        let volumes = c.volumes.len().to_string();
        row([short(&c.id), &c.state, &pid(c), &ids(&c.uid_mappings), &volumes])
    }));
    Report { json: status.containers.iter().map(describe).collect(), table }
}

fn inspect(status: &MgrStatus, id: &str) -> anyhow::Result<Report> {
    let found: Vec<_> = status.containers.iter().filter(|c| c.id.starts_with(id)).collect();
    let exact = found.iter().find(|c| c.id == id);
    match (exact, &found[..]) {
        (Some(container), _) | (None, [container]) => {
            Ok(Report { json: describe(container), table: Vec::new() })
        }
        (None, []) => bail!("there is no system container {id}; see `sysbox ps`"),
        (None, several) => {
            bail!("{} system containers have ids that begin with {id}", several.len())
        }
    }
}

fn volumes(status: &MgrStatus) -> Report {
    let mut table = vec![row(["CONTAINER", "STATE", "DESTINATION", "SOURCE"])];
    let mut json = Vec::new();
    for c in &status.containers {
        for v in &c.volumes {
            table.push(row([short(&c.id), &c.state, &v.destination, &v.source]));
            json.push(json!({
                "container": c.id, "state": c.state, "source": v.source, "destination": v.destination,
            }));
        }
    }
    Report { json: json.into(), table }
}

fn version() -> Report {
    let mgr = status().map(|s| s.version).map_err(|e| e.to_string());
    let fs =
        FsClient::connect().and_then(|c| c.status()).map(|s| s.version).map_err(|e| e.to_string());
    let own = env!("CARGO_PKG_VERSION");
    let text = |version: &Result<String, String>| version.clone().unwrap_or_else(|e| e);
    let table = vec![
        row(["PROGRAM", "VERSION"]),
        row(["sysbox", own]),
        row(["sysbox-mgr", &text(&mgr)]),
        row(["sysbox-fs", &text(&fs)]),
    ];
    Report { json: json!({ "sysbox": own, "sysbox-mgr": mgr.ok(), "sysbox-fs": fs.ok() }), table }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> MgrStatus {
        let container = |id: &str| ContainerStatus {
            id: id.to_owned(),
            state: "running".to_owned(),
            init_pid: 7,
            uid_mappings: vec![IdMapping { container_id: 0, host_id: 100, size: 10 }],
            volumes: Vec::new(),
        };
        MgrStatus {
            containers: vec![container("a1"), container("a12"), container("b")],
            ..Default::default()
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_container() {
        let text = columns(&ps(&status()).table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], "a1    running   7     100-109    0");
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_if_it_is_the_only_one() {
        assert_eq!(inspect(&status(), "b").unwrap().json["pid"], 7);
        assert_eq!(inspect(&status(), "a1").unwrap().json["id"], "a1");
        assert!(inspect(&status(), "a").is_err() && inspect(&status(), "c").is_err());
    }
}
