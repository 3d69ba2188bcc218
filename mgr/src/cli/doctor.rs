//! `sysbox doctor`: tries what system containers need, says what each thing is good for, and what to do
//! where something is missing.

mod engines;
mod host;
mod kernel;

use serde_json::json;
use sysbox_ipc::FsClient;

use super::client::Client;
use super::report::{self, Report, bytes};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Works without it, in another way or with less.
    Less,
    /// Containers can't be started.
    Bad,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Less => "less",
            Self::Bad => "missing",
        }
    }
}

/// One line of the report.
#[derive(Debug)]
pub struct Check {
    /// What was looked at.
    pub what: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What it is good for.
    pub gives: &'static str,
    /// What to do; empty if all is well.
    pub remedy: String,
}

impl Check {
    /// A check of something that containers can't do without.
    pub fn needed<E: std::fmt::Display>(
        what: impl Into<String>,
        found: Result<String, E>,
        gives: &'static str,
        remedy: &str,
    ) -> Self {
        Self::new(what, found, gives, remedy, Verdict::Bad)
    }

    /// A check of something that makes containers better.
    pub fn useful<E: std::fmt::Display>(
        what: impl Into<String>,
        found: Result<String, E>,
        gives: &'static str,
        remedy: &str,
    ) -> Self {
        Self::new(what, found, gives, remedy, Verdict::Less)
    }

    fn new<E: std::fmt::Display>(
        what: impl Into<String>,
        found: Result<String, E>,
        gives: &'static str,
        remedy: &str,
        otherwise: Verdict,
    ) -> Self {
        let what = what.into();
        match found {
            Ok(found) => Self { what, verdict: Verdict::Ok, found, gives, remedy: String::new() },
            Err(e) => {
                let (found, remedy) = (e.to_string(), remedy.to_owned());
                Self { what, verdict: otherwise, found, gives, remedy }
            }
        }
    }
}

/// Prints the report; fails if something is missing.
pub fn run(json: bool) -> anyhow::Result<()> {
    let mut checks = vec![rights()];
    checks.extend(daemons());
    checks.extend(kernel::checks());
    checks.extend(host::checks());
    checks.extend(engines::checks());
    let describe = |c: &Check| {
        json!({
            "check": c.what, "result": c.verdict.name(), "found": c.found, "gives": c.gives,
            "remedy": c.remedy,
        })
    };
    if json {
        let json = checks.iter().map(describe).collect();
        Report { json, table: Vec::new() }.print(true)?;
    } else {
        report::print(&checks.iter().map(lines).collect::<String>())?;
    }
    let missing = checks.iter().filter(|c| c.verdict == Verdict::Bad).count();
    if missing > 0 {
        anyhow::bail!("{missing} of {} checks failed; see above what to do", checks.len());
    }
    Ok(())
}

/// A check for people, with its remedy on a line of its own.
fn lines(check: &Check) -> String {
    let Check { what, verdict, found, gives, remedy } = check;
    let mut text = format!("{:<8} {what}: {found}\n{:9}gives: {gives}\n", verdict.name(), "");
    if !remedy.is_empty() {
        text.push_str(&format!("{:9}to do: {remedy}\n", ""));
    }
    text
}

fn rights() -> Check {
    let found = match rustix::process::geteuid().is_root() {
        true => Ok("root".to_owned()),
        false => Err("not root"),
    };
    Check::needed("rights", found, "the other checks need it", "run `sudo sysbox doctor`")
}

/// `sysbox-fs`, asked without the manager.
fn files_alone() -> Result<String, String> {
    let status = FsClient::connect().and_then(|client| client.status());
    status.map(|s| format!("version {}, process {}", s.version, s.pid)).map_err(|e| e.to_string())
}

fn daemons() -> Vec<Check> {
    let reply = Client::connect().and_then(|client| client.version());
    let describe = |d: &sysbox_mgr::api::proto::Daemon| {
        let memory = bytes(d.resident_bytes);
        format!("version {}, process {}, {memory}, {} starts", d.version, d.pid, d.starts)
    };
    let (manager, files) = match &reply {
        Err(e) => (Err(e.to_string()), files_alone()),
        Ok(reply) => (
            reply.manager.as_ref().map(describe).ok_or_else(|| "no answer".to_owned()),
            reply.files.as_ref().map(describe).ok_or_else(|| reply.files_error.clone()),
        ),
    };
    let start = |name: &str| format!("`systemctl start {name}`, or run `{name}` as root");
    vec![
        Check::needed(
            "sysbox-mgr",
            manager,
            "ids, volumes and mounts of containers",
            &start("sysbox-mgr"),
        ),
        Check::needed(
            "sysbox-fs",
            files,
            "files of /proc and /sys for containers",
            &start("sysbox-fs"),
        ),
    ]
}
