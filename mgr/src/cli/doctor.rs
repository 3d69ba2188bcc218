//! `sysbox doctor`: tries what system containers need, and says what to do where something is missing.

use std::fs;

use serde_json::json;
use sysbox_cgroups::Layout;
use sysbox_ipc::{FsClient, MgrClient};
use sysbox_kernel::{fuse, ns};
use sysbox_mgr::broker::Features;

use super::{Report, row};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// Works, in another way.
    Slower,
    Bad,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slower => "fallback",
            Self::Bad => "missing",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    /// What was found, or what to do.
    text: String,
}

/// Prints the report; fails if something is missing.
pub fn run(json: bool) -> anyhow::Result<()> {
    let mut checks = vec![root(), manager(), files(), user_namespaces(), fuse_device(), cgroups()];
    checks.extend(["/etc/subuid", "/etc/subgid"].map(subordinate_ids));
    checks.extend(mount_features());
    checks.push(docker());
    let mut table = vec![row(["CHECK", "RESULT", "DETAILS"])];
    table.extend(checks.iter().map(|c| row([c.what, c.verdict.name(), &c.text])));
    let describe =
        |c: &Check| json!({ "check": c.what, "result": c.verdict.name(), "details": c.text });
    Report { json: checks.iter().map(describe).collect(), table }.print(json)?;
    let missing = checks.iter().filter(|c| c.verdict == Verdict::Bad).count();
    if missing > 0 {
        anyhow::bail!("{missing} of {} checks failed; see above what to do", checks.len());
    }
    Ok(())
}

/// A check that either works, with a text, or does not, with an error and a remedy.
fn check(what: &'static str, found: Result<String, impl std::fmt::Display>, remedy: &str) -> Check {
    match found {
        Ok(text) => Check { what, verdict: Verdict::Ok, text },
        Err(e) => Check { what, verdict: Verdict::Bad, text: format!("{e}; {remedy}") },
    }
}

fn root() -> Check {
    let is = rustix::process::geteuid().is_root();
    let found = if is { Ok("run as root".to_owned()) } else { Err("not run as root") };
    check("rights", found, "run `sudo sysbox doctor`: the other checks need it")
}

fn manager() -> Check {
    let status = MgrClient::connect().and_then(|client| client.status());
    let found = status.map(|s| {
        format!("version {}, process {}, {} containers", s.version, s.pid, s.containers.len())
    });
    check("sysbox-mgr", found, "no container can be started without it")
}

fn files() -> Check {
    let status = FsClient::connect().and_then(|client| client.status());
    let found = status.map(|s| format!("version {}, process {}", s.version, s.pid));
    check("sysbox-fs", found, "no container can be started without it")
}

fn user_namespaces() -> Check {
    let map = [ns::IdMap { inside: 0, outside: 0, count: 1 }];
    let found = ns::user_namespace(&map, &map).map(|_| "can be made".to_owned());
    check("user namespaces", found, "raise the sysctl user.max_user_namespaces")
}

fn fuse_device() -> Check {
    let found = fuse::open_device().map(|_| "/dev/fuse can be opened".to_owned());
    check("FUSE", found, "run `modprobe fuse`")
}

fn cgroups() -> Check {
    let found = Layout::detect().map(|layout| match layout.mounts() {
        [_] => "one hierarchy".to_owned(),
        mounts => format!("{} hierarchies: limits are set in those of version 1", mounts.len()),
    });
    check("cgroups", found, "mount the cgroup2 file system at /sys/fs/cgroup")
}

fn subordinate_ids(file: &'static str) -> Check {
    let text = fs::read_to_string(file).unwrap_or_default();
    let entries = |line: &str| -> Option<u64> {
        let mut fields = line.strip_prefix("sysbox:")?.split(':').skip(1);
        fields.next()?.trim().parse().ok()
    };
    let count: u64 = text.lines().filter_map(entries).sum();
    let found = match count / 65536 {
        0 => Err(format!("{file} has no entry for 65536 ids of user sysbox")),
        containers => Ok(format!("{count} ids, enough for {containers} containers")),
    };
    check(file, found, "sysbox-mgr adds one when it starts")
}

fn mount_features() -> Vec<Check> {
    match Features::probe() {
        Err(e) => vec![check("mounts inside", Err::<String, _>(e), "run as root on the host")],
        Ok(features) => vec![
            feature(
                "procfs by option",
                features.pidns_option,
                "an inner proc is made by a short-lived process (before Linux 6.18)",
            ),
            feature(
                "mounts on detached trees",
                features.detached_trees,
                "an inner proc shows for microseconds without its virtualised files (before Linux 6.15)",
            ),
        ],
    }
}

fn feature(what: &'static str, is_there: bool, otherwise: &str) -> Check {
    let (verdict, text) = match is_there {
        true => (Verdict::Ok, "the kernel has it"),
        false => (Verdict::Slower, otherwise),
    };
    Check { what, verdict, text: text.to_owned() }
}

fn docker() -> Check {
    let file = "/etc/docker/daemon.json";
    let what = "Docker";
    let Ok(text) = fs::read_to_string(file) else {
        let text = format!("{file} is not there; register the runtime if Docker is to use it");
        return Check { what, verdict: Verdict::Slower, text };
    };
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let names = config["runtimes"].as_object().map(|r| r.keys().cloned().collect::<Vec<_>>());
    let names: Vec<_> =
        names.unwrap_or_default().into_iter().filter(|name| name.starts_with("sysbox")).collect();
    let found = if names.is_empty() {
        Err(format!("{file} does not name the runtime"))
    } else {
        Ok(format!("runtimes {}", names.join(", ")))
    };
    check(what, found, "add it under \"runtimes\" and reload Docker")
}
