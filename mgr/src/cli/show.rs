//! Answers of the manager as tables and JSON.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::json;
use sysbox_mgr::api::proto::{Container, Daemon, IdMapping, Leftover, Volume};

use super::client::Client;
use super::report::{Report, bytes, duration, row, short};

/// Host ids, as `first-last`.
fn ids(mappings: &[IdMapping]) -> String {
    let range = |m: &IdMapping| format!("{}-{}", m.host_id, m.host_id + m.size.saturating_sub(1));
    mappings.iter().map(range).collect::<Vec<_>>().join(",")
}

/// `sysbox ps`
pub fn ps(containers: &[Container]) -> Report {
    let head = ["NAME", "ID", "STATE", "UPTIME", "PID", "HOST IDS", "MEMORY", "CPU", "VOLUMES"];
    let mut table = vec![row(head)];
    table.extend(containers.iter().map(|c| {
        let pid = if c.pid == 0 { String::new() } else { c.pid.to_string() };
        let uptime = if c.uptime_ms == 0 { String::new() } else { duration(c.uptime_ms) };
        let memory = c.usage.as_ref().map(|usage| bytes(usage.memory_bytes)).unwrap_or_default();
        let cpu = c.usage.as_ref().map(|usage| seconds(usage.cpu_ns)).unwrap_or_default();
        let volumes = c.volumes.len().to_string();
        let ids = ids(&c.uid_mappings);
        row([&c.name, short(&c.id), &c.state, &uptime, &pid, &ids, &memory, &cpu, &volumes])
    }));
    Report { json: json!(containers), table }
}

/// CPU time for people.
pub fn seconds(ns: u64) -> String {
    format!("{:.1}s", ns as f64 / 1e9)
}

/// `sysbox inspect`
pub fn inspect(client: &Client, which: &str) -> anyhow::Result<Report> {
    let found = client.list(which)?;
    Ok(Report { json: json!(choose(&found, which)?), table: Vec::new() })
}

/// The one container that is meant.
fn choose<'a>(found: &'a [Container], which: &str) -> anyhow::Result<&'a Container> {
    let exact = found.iter().find(|c| c.id == which || c.name == which);
    match (exact, found) {
        (Some(container), _) | (None, [container]) => Ok(container),
        (None, []) => bail!("there is no system container {which}; see `sysbox ps`"),
        (None, several) => {
            bail!("{} system containers have ids that begin with {which}", several.len())
        }
    }
}

/// `sysbox volumes`
pub fn volumes(volumes: &[Volume], sizes: bool) -> Report {
    let mut table = vec![row(["CONTAINER", "ID", "STATE", "DESTINATION", "SOURCE"])];
    if sizes {
        table[0].push("SIZE".to_owned());
    }
    table.extend(volumes.iter().map(|v| {
        let id = short(&v.container_id);
        let mut line = row([&v.container_name, id, &v.state, &v.destination, &v.source]);
        if sizes {
            line.push(bytes(v.bytes));
        }
        line
    }));
    Report { json: json!(volumes), table }
}

/// `sysbox gc`
pub fn leftovers(leftovers: &[Leftover]) -> Report {
    let mut table = vec![row(["ACTION", "KIND", "CONTAINER", "PATH", "REASON"])];
    table.extend(
        leftovers
            .iter()
            .map(|l| row([&l.action, &l.kind, short(&l.container_id), &l.path, &l.reason])),
    );
    Report { json: json!(leftovers), table }
}

/// `sysbox log-level`
pub fn levels(levels: &BTreeMap<String, String>) -> Report {
    let mut table = vec![row(["DAEMON", "LEVEL"])];
    table.extend(levels.iter().map(|(daemon, level)| row([daemon, level])));
    Report { json: json!(levels), table }
}

/// `sysbox version`
pub fn version() -> Report {
    let own = env!("CARGO_PKG_VERSION");
    let reply = Client::connect().and_then(|client| client.version());
    let (manager, files, protocol) = match reply {
        Err(e) => (Err(e.to_string()), Err("unknown".to_owned()), None),
        Ok(reply) => (
            reply.manager.ok_or_else(|| "unknown".to_owned()),
            reply.files.ok_or(reply.files_error),
            Some(reply.protocol),
        ),
    };
    let mut table = vec![row(["PROGRAM", "VERSION", "PID", "STARTS", "MEMORY", "LOG"])];
    table.push(row(["sysbox", own, "", "", "", ""]));
    for (name, daemon) in [("sysbox-mgr", &manager), ("sysbox-fs", &files)] {
        table.push(match daemon {
            Err(why) => row([name, why, "", "", "", ""]),
            Ok(d) => {
                let (pid, starts) = (d.pid.to_string(), d.starts.to_string());
                row([name, &d.version, &pid, &starts, &bytes(d.resident_bytes), &d.log_level])
            }
        });
    }
    let daemon = |daemon: Result<Daemon, String>| match daemon {
        Ok(daemon) => json!(daemon),
        Err(why) => json!({ "error": why }),
    };
    let json = json!({
        "sysbox": own,
        "protocol": protocol,
        "sysbox-mgr": daemon(manager),
        "sysbox-fs": daemon(files),
    });
    Report { json, table }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str) -> Container {
        Container {
            id: id.to_owned(),
            name: name.to_owned(),
            state: "running".to_owned(),
            pid: 7,
            uptime_ms: 61_000,
            uid_mappings: vec![IdMapping { container_id: 0, host_id: 100, size: 10 }],
            ..Default::default()
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_container() {
        let report = ps(&[container("a1", "web"), container("b", "")]);
        let lines: Vec<_> = report.table.iter().map(|line| line.join("|")).collect();
        assert_eq!(lines[0], "NAME|ID|STATE|UPTIME|PID|HOST IDS|MEMORY|CPU|VOLUMES");
        assert_eq!(lines[1], "web|a1|running|1m 1s|7|100-109|-|-|0");
        assert_eq!(lines[2], "-|b|running|1m 1s|7|100-109|-|-|0");
        assert_eq!(report.json[0]["uid_mappings"][0]["host_id"], 100);
    }

    #[test]
    fn a_container_is_meant_by_name_or_by_the_beginning_of_its_id() {
        let found = [container("a1", "x"), container("a12", "a")];
        assert_eq!(choose(&found, "a1").unwrap().id, "a1");
        assert_eq!(choose(&found, "a").unwrap().id, "a12");
        assert!(choose(&found, "b").unwrap_err().to_string().contains("begin with b"));
        assert_eq!(choose(&found[..1], "a").unwrap().id, "a1");
        assert!(choose(&[], "c").unwrap_err().to_string().contains("no system container c"));
    }
}
