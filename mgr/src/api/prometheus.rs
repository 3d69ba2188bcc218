//! All numbers as text, in the format that Prometheus reads (0.0.4).

use std::fmt::Write as _;

use sysbox_daemon::metrics::BOUNDS_US;
use sysbox_daemon::usage;
use sysbox_ipc::FsClient;
use sysbox_ipc::proto::{FsStatus, Histogram, Resources};

use super::containers;
use crate::manager::Manager;
use crate::metrics;

/// What the text is sent as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// States that containers are counted in, also when none is in one.
const STATES: [&str; 5] = ["creating", "running", "paused", "exited", "stopped"];

/// The page.
pub fn text(manager: &Manager) -> String {
    let mut page = Page::default();
    let files = FsClient::connect().and_then(|client| client.status()).ok();
    daemons(&mut page, &usage::resources(), files.as_ref());
    of_containers(&mut page, manager);
    page.head("sysbox_trapped_calls_seconds", "histogram", "Trapped system calls, by call");
    for (call, histogram) in metrics::CALLS.iter().zip(&metrics::TRAPPED) {
        let labels = [("call", *call)];
        page.histogram("sysbox_trapped_calls_seconds", &labels, &histogram.snapshot());
    }
    page.head("sysbox_register_seconds", "histogram", "The manager's part of creating a container");
    page.histogram("sysbox_register_seconds", &[], &metrics::REGISTER.snapshot());
    if let Some(reads) = files.as_ref().and_then(|files| files.reads.as_ref()) {
        page.head(
            "sysbox_emulated_reads_seconds",
            "histogram",
            "Virtualised files that were opened",
        );
        page.histogram("sysbox_emulated_reads_seconds", &[], reads);
    }
    page.head(
        "sysbox_errors_total",
        "counter",
        "What failed for a reason of the host's or our own",
    );
    let errors = [
        ("trapped-call", metrics::BROKEN.get()),
        ("refused-runtime-call", metrics::REFUSED.get()),
        ("emulated-file", files.as_ref().map_or(0, |files| files.errors)),
    ];
    for (kind, count) in errors {
        page.value("sysbox_errors_total", &[("kind", kind)], count as f64);
    }
    page.head("sysbox_events_total", "counter", "What happened to containers, by kind");
    for (kind, count) in manager.events().counts() {
        page.value("sysbox_events_total", &[("kind", kind.name())], count as f64);
    }
    page.0
}

fn daemons(page: &mut Page, own: &Resources, files: Option<&FsStatus>) {
    let daemons = [
        ("sysbox-mgr", Some(env!("CARGO_PKG_VERSION")), Some(own)),
        (
            "sysbox-fs",
            files.map(|files| files.version.as_str()),
            files.and_then(|files| files.resources.as_ref()),
        ),
    ];
    page.head("sysbox_up", "gauge", "Whether a daemon answers, by daemon and version");
    for (daemon, version, _) in &daemons {
        let labels = [("daemon", *daemon), ("version", version.unwrap_or(""))];
        page.value("sysbox_up", &labels, f64::from(u8::from(version.is_some())));
    }
    type Read = fn(&Resources) -> f64;
    let rows: [(&str, &str, &str, Read); 4] = [
        ("sysbox_daemon_starts_total", "counter", "Starts of a daemon since boot", |r| {
            r.starts.into()
        }),
        ("sysbox_open_fds", "gauge", "Open descriptors", |r| r.descriptors.into()),
        ("sysbox_resident_bytes", "gauge", "Resident memory", |r| r.resident_bytes as f64),
        ("sysbox_threads", "gauge", "Threads", |r| r.threads.into()),
    ];
    for (name, kind, help, read) in rows {
        page.head(name, kind, help);
        for (daemon, _, resources) in &daemons {
            if let Some(resources) = resources {
                page.value(name, &[("daemon", daemon)], read(resources));
            }
        }
    }
}

fn of_containers(page: &mut Page, manager: &Manager) {
    let all = containers::list(manager, "");
    page.head("sysbox_containers", "gauge", "Containers, by state");
    for state in STATES {
        let count = all.iter().filter(|container| container.state == state).count();
        page.value("sysbox_containers", &[("state", state)], count as f64);
    }
    page.head("sysbox_host_ids_taken", "gauge", "Host user ids that containers have");
    page.value("sysbox_host_ids_taken", &[], manager.ids_taken() as f64);
    type Read = fn(&super::proto::Usage) -> f64;
    let rows: [(&str, &str, &str, Read); 3] = [
        ("sysbox_container_memory_bytes", "gauge", "Memory of a container", |u| {
            u.memory_bytes as f64
        }),
        ("sysbox_container_cpu_seconds_total", "counter", "CPU time of a container", |u| {
            u.cpu_ns as f64 / 1e9
        }),
        ("sysbox_container_tasks", "gauge", "Tasks of a container", |u| u.tasks as f64),
    ];
    for (name, kind, help, read) in rows {
        page.head(name, kind, help);
        for container in &all {
            if let Some(usage) = &container.usage {
                let labels = [("id", container.id.as_str()), ("name", container.name.as_str())];
                page.value(name, &labels, read(usage));
            }
        }
    }
}

/// The text under construction.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<_> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let _ = write!(self.0, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// Classes are added up, as the format wants it.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let (bucket, mut sum) = (format!("{name}_bucket"), 0);
        let ends = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string());
        for (end, count) in ends.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            sum += count;
            let labels: Vec<_> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            self.value(&bucket, &labels, sum as f64);
        }
        self.value(&format!("{name}_sum"), labels, histogram.sum_ns as f64 / 1e9);
        self.value(&format!("{name}_count"), labels, sum as f64);
    }
}

/// A name may hold whatever an engine allows.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.head("a_total", "counter", "Something");
        page.value("a_total", &[("name", "x\"y\\z\n")], 3.0);
        page.value("b", &[], 0.25);
        assert_eq!(
            page.0,
            "# HELP a_total Something.\n# TYPE a_total counter\na_total{name=\"x\\\"y\\\\z\\n\"} 3\nb 0.25\n"
        );
    }

    #[test]
    fn classes_add_up_to_the_count() {
        let mut counts = vec![0; BOUNDS_US.len() + 1];
        (counts[0], counts[2], counts[12]) = (5, 2, 1);
        let mut page = Page::default();
        page.histogram("t", &[("call", "mount")], &Histogram { counts, sum_ns: 1_500_000_000 });
        let lines: Vec<_> = page.0.lines().collect();
        assert_eq!(lines[0], "t_bucket{call=\"mount\",le=\"0.00005\"} 5");
        assert_eq!(lines[2], "t_bucket{call=\"mount\",le=\"0.00025\"} 7");
        assert_eq!(lines[12], "t_bucket{call=\"mount\",le=\"+Inf\"} 8");
        assert_eq!(lines[13..], ["t_sum{call=\"mount\"} 1.5", "t_count{call=\"mount\"} 8"]);
    }
}
