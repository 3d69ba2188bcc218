//! The process of a spec, read into the values that the kernel takes.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime as oci;
use rustix::thread::CapabilitySet;

use super::Schedule;

/// A process to start, by `create` or by `exec`.
#[derive(Clone, Debug)]
pub struct ProcessPlan {
    /// `argv`, at least one.
    pub args: Vec<CString>,
    /// Environment, without HOME if the spec gives none.
    pub env: Vec<CString>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// User, primary group, supplementary groups: ids inside the container.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// See `uid`.
    pub groups: Vec<u32>,
    /// File mode creation mask; 0022 by default.
    pub umask: u32,
    /// The five capability sets.
    pub capabilities: Capabilities,
    /// `prctl(PR_SET_NO_NEW_PRIVS)`
    pub no_new_privileges: bool,
    /// getrlimit(2) name without `RLIMIT_`, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// `/proc/PID/oom_score_adj`
    pub oom_score_adj: Option<i32>,
    /// A pseudo-terminal is the standard input, output and error.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// How the kernel schedules it.
    pub schedule: Schedule,
    /// The seccomp profile hands calls to an agent of the user's (`linux.seccomp.listenerPath`).
    pub own_listener: bool,
    /// `apparmorProfile`
    pub apparmor_profile: Option<String>,
    /// `selinuxLabel`
    pub selinux_label: Option<String>,
}

/// capabilities(7) of the process.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: CapabilitySet,
    /// Effective set.
    pub effective: CapabilitySet,
    /// Permitted set.
    pub permitted: CapabilitySet,
    /// Inheritable set.
    pub inheritable: CapabilitySet,
    /// Ambient set.
    pub ambient: CapabilitySet,
}

impl ProcessPlan {
    /// Reads a (converted) process of the spec; `linux` has what holds for every process of the
    /// container.
    pub fn new(process: &oci::Process, linux: Option<&oci::Linux>) -> Result<Self> {
        let strings = |list: &Option<Vec<String>>, field: &str| -> Result<Vec<CString>> {
            list.iter()
                .flatten()
                .map(|s| {
                    CString::new(s.as_str())
                        .with_context(|| format!("{field}: a NUL byte in {s:?}"))
                })
                .collect()
        };
        let args = strings(process.args(), "process.args")?;
        ensure!(!args.is_empty(), "process.args must not be empty");
        let env = strings(process.env(), "process.env")?;
        ensure!(
            process.cwd().is_absolute(),
            "process.cwd: {:?} is not an absolute path",
            process.cwd()
        );
        let user = process.user();
        Ok(Self {
            args,
            env: last_of_each_name(env),
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask().unwrap_or(0o022),
            capabilities: Capabilities::new(process.capabilities().as_ref())?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            rlimits: process
                .rlimits()
                .iter()
                .flatten()
                .map(|r| {
                    let name = r.typ().to_string();
                    let name = name.trim_start_matches("RLIMIT_").to_owned();
                    (name, r.soft(), r.hard())
                })
                .collect(),
            oom_score_adj: process.oom_score_adj(),
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(|size| {
                let clamp = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
                (clamp(size.height()), clamp(size.width()))
            }),
            schedule: Schedule::new(process, linux)?,
            own_listener: linux
                .and_then(|l| l.seccomp().as_ref())
                .is_some_and(sysbox_seccomp::wants_own_listener),
            apparmor_profile: not_empty(process.apparmor_profile()),
            selinux_label: not_empty(process.selinux_label()),
        })
    }

    /// Tells the process of sockets that it inherits (sd_listen_fds(3)); it is process 1 of its
    /// own, whatever its pid.
    pub fn pass_sockets(&mut self, count: u32) {
        if count > 0 {
            self.env.retain(|e| !e.to_bytes().starts_with(b"LISTEN_"));
            let entries = [format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
            self.env.extend(entries.into_iter().filter_map(|entry| CString::new(entry).ok()));
        }
    }

    /// Value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix(name)?.strip_prefix('='))
    }
}

fn not_empty(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// A variable that is given twice counts as it was given last, as in runc.
fn last_of_each_name(env: Vec<CString>) -> Vec<CString> {
    let name = |entry: &CString| entry.to_bytes().split(|b| *b == b'=').next().map(<[u8]>::to_vec);
    let last: BTreeMap<_, _> = env.iter().enumerate().map(|(i, e)| (name(e), i)).collect();
    let keep = |(i, e): (usize, CString)| (last.get(&name(&e)) == Some(&i)).then_some(e);
    env.into_iter().enumerate().filter_map(keep).collect()
}

impl Capabilities {
    fn new(capabilities: Option<&oci::LinuxCapabilities>) -> Result<Self> {
        let none = CapabilitySet::empty();
        let Some(c) = capabilities else {
            return Ok(Self {
                bounding: none,
                effective: none,
                permitted: none,
                inheritable: none,
                ambient: none,
            });
        };
        Ok(Self {
            bounding: set(c.bounding().as_ref())?,
            effective: set(c.effective().as_ref())?,
            permitted: set(c.permitted().as_ref())?,
            inheritable: set(c.inheritable().as_ref())?,
            ambient: set(c.ambient().as_ref())?,
        })
    }
}

fn set(names: Option<&oci::Capabilities>) -> Result<CapabilitySet> {
    let mut set = CapabilitySet::empty();
    for name in names.into_iter().flatten() {
        let name = name.to_string();
        let name = name.trim_start_matches("CAP_");
        match <CapabilitySet as bitflags::Flags>::from_name(name) {
            Some(bit) => set |= bit,
            None => bail!("process.capabilities: {name} is not known"),
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> oci::Process {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn capabilities_rlimits_and_defaults() {
        let plan = ProcessPlan::new(
            &process(
                r#"{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"/","env":["A=1","B=2","A=3"],
                "capabilities":{"bounding":["CAP_SYS_ADMIN"],"effective":["CAP_NET_ADMIN"]},
                "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}]}"#,
            ),
            None,
        )
        .unwrap();
        assert_eq!(plan.capabilities.bounding, CapabilitySet::SYS_ADMIN);
        assert_eq!(plan.capabilities.effective, CapabilitySet::NET_ADMIN);
        assert_eq!(plan.rlimits, [("NOFILE".to_owned(), 1, 2)]);
        assert_eq!(plan.variable("A"), Some("3"));
        assert_eq!(plan.env.len(), 2);
        assert_eq!(plan.umask, 0o022);
    }

    #[test]
    fn a_relative_cwd_is_refused() {
        let p = process(r#"{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"x"}"#);
        assert!(ProcessPlan::new(&p, None).is_err());
    }
}
