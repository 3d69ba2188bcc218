//! Starting and stopping the scope of a container.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::bus::{Bus, Failure};
use super::message::Writer;
use super::placeholder::Placeholder;
use super::property::{self, Property, Value};
use crate::error::{Context, Error, Result};
use crate::procs;

/// How long systemd may take to start or stop a scope.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the remains of an earlier unit of the same name may stand in the way.
const REMAINS: Duration = Duration::from_secs(10);

/// systemd's names for "there is a unit of that name" and "there is none".
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// What it answers to a property that it does not know, or a value that it does not take.
const BAD_PROPERTY: [&str; 2] =
    ["org.freedesktop.DBus.Error.PropertyReadOnly", "org.freedesktop.DBus.Error.InvalidArgs"];

/// The unit of a container: all is in the path of its cgroup.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// `PREFIX-NAME.scope`
    name: &'a str,
    /// The slice that it is in.
    slice: &'a str,
    /// Its cgroup.
    dir: &'a Path,
}

impl<'a> Scope<'a> {
    /// The scope whose cgroup is `dir`, in the hierarchy that is mounted on `root`.
    pub(super) fn at(root: &Path, dir: &'a Path) -> Result<Scope<'a>> {
        let refuse =
            |reason: &str| Error::Systemd { reason: format!("cgroup {}: {reason}", dir.display()) };
        let name = dir.file_name().and_then(|name| name.to_str());
        let name = name.filter(|name| name.ends_with(".scope")).ok_or_else(|| {
            refuse("a container needs a scope: linux.cgroupsPath is slice:prefix:name, and name no slice")
        })?;
        let slice = match dir.parent() {
            Some(parent) if parent == root => Some("-.slice"),
            Some(parent) => parent.file_name().and_then(|name| name.to_str()),
            None => None,
        };
        let slice = slice.ok_or_else(|| refuse("the name of its slice is no text"))?;
        Ok(Scope { name, slice, dir })
    }

    /// Starts the scope. Its cgroup has the limits and lives as long as the placeholder, or what is put
    /// into it meanwhile.
    pub(super) fn start(&self, description: &str, limits: &[Property]) -> Result<Placeholder> {
        let what = "start";
        let (placeholder, pid) = Placeholder::start()
            .context("make a process for the systemd scope of cgroup", self.dir)?;
        let mut bus = Bus::open().map_err(|failure| self.failed(what, failure))?;
        let mut properties = self.properties(description, pid);
        properties.extend_from_slice(limits);
        let job = self.request_start(&mut bus, properties)?;
        let result = bus.wait_job(&job, Instant::now() + DEADLINE);
        let failure = match result {
            Ok(result) if result == "done" => None,
            Ok(result) => Some(format!("systemd's job ended with {result:?}: see journalctl -b")),
            Err(failure) => Some(failure.to_string()),
        };
        if let Some(reason) = failure.or_else(|| self.misplaced(pid)) {
            // The placeholder's end stops the scope; this removes what may be left as "failed".
            drop(placeholder);
            let _ = self.named(&mut bus, "ResetFailedUnit", "s", |_| {});
            return Err(self.failed(what, reason));
        }
        Ok(placeholder)
    }

    fn properties(&self, description: &str, pid: i32) -> Vec<Property> {
        let text = |name, text: &str| Property::new(name, Value::Text(text.to_owned()));
        let flag = |name, value| Property::new(name, Value::Bool(value));
        vec![
            text("Description", description),
            text("Slice", self.slice),
            Property::new("PIDs", Value::Numbers(vec![pid.unsigned_abs()])),
            // The tree below is ours: systemd neither looks into it nor moves processes there, and
            // switches on all the controllers that it knows.
            flag("Delegate", true),
            // No order at shutdown: the engine stops its containers, before it is stopped itself.
            flag("DefaultDependencies", false),
            // Without a trace once it has ended, also where processes were killed.
            text("CollectMode", "inactive-or-failed"),
            flag("CPUAccounting", true),
            flag("MemoryAccounting", true),
            flag("IOAccounting", true),
            flag("TasksAccounting", true),
            // Else systemd's DefaultTasksMax= is taken, 15 % of what the machine can have. A limit of
            // the specification comes after, and wins.
            Property::new("TasksMax", Value::U64(u64::MAX)),
        ]
    }

    /// Asks for the start and gives the job. A unit of the same name that has ended is cleared away.
    fn request_start(&self, bus: &mut Bus, mut properties: Vec<Property>) -> Result<String> {
        let deadline = Instant::now() + REMAINS;
        loop {
            let answer = self.named(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", |arguments| {
                // If a job of that unit is waiting, it is not for us to cancel it.
                arguments.string("fail");
                property::write(arguments, &properties);
                arguments.array(8, |_| {});
            });
            match answer {
                Ok(Some(job)) => return Ok(job),
                Ok(None) => return Err(self.failed("start", "the answer has no job in it")),
                Err(failure) if failure.is(UNIT_EXISTS) && Instant::now() < deadline => {
                    if procs::populated(self.dir).context("look into", self.dir)? {
                        return Err(Error::InUse { path: self.dir.to_owned() });
                    }
                    self.clear_away(bus);
                }
                Err(failure)
                    if BAD_PROPERTY.iter().any(|name| failure.is(name))
                        && properties.iter().any(|property| property.recent) =>
                {
                    properties.retain(|property| !property.recent);
                }
                Err(failure) => return Err(self.failed("start", failure)),
            }
        }
    }

    /// Removes what an earlier unit of that name has left; what cannot be done now shows in the next try.
    fn clear_away(&self, bus: &mut Bus) {
        let _ = self.named(bus, "ResetFailedUnit", "s", |_| {});
        let _ = self.stop_on(bus);
        thread::sleep(Duration::from_millis(10));
    }

    /// Why the process is not where the container is going to be, if so.
    fn misplaced(&self, pid: i32) -> Option<String> {
        let inside = crate::file::read(self.dir, "cgroup.procs")
            .is_ok_and(|pids| pids.lines().any(|line| line.parse() == Ok(pid)));
        let there = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        (!inside).then(|| {
            format!(
                "it has been made in another cgroup ({}) than {}: choose another slice or name \
                 (linux.cgroupsPath)",
                there.trim(),
                self.dir.display()
            )
        })
    }

    /// Stops the scope and waits until systemd has done so. A scope that is not there is stopped.
    pub(super) fn stop(&self) -> Result<()> {
        let stopped = Bus::open().and_then(|mut bus| self.stop_on(&mut bus));
        stopped.map_err(|failure| self.failed("stop", failure))
    }

    fn stop_on(&self, bus: &mut Bus) -> std::result::Result<(), Failure> {
        match self.named(bus, "StopUnit", "ss", |arguments| arguments.string("replace")) {
            Ok(Some(job)) => {
                bus.wait_job(&job, Instant::now() + DEADLINE)?;
                let _ = self.named(bus, "ResetFailedUnit", "s", |_| {});
                Ok(())
            }
            Ok(None) => Err(Failure::Protocol("the answer has no job in it")),
            Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Tells systemd new limits. They are lost with the unit, not written for the next boot.
    pub(super) fn set(&self, mut limits: Vec<Property>) -> Result<()> {
        let mut bus = Bus::open().map_err(|failure| self.failed("change", failure))?;
        while !limits.is_empty() {
            let answer = self.named(&mut bus, "SetUnitProperties", "sba(sv)", |arguments| {
                arguments.bool(true);
                property::write(arguments, &limits);
            });
            match answer {
                Ok(_) => break,
                Err(failure)
                    if BAD_PROPERTY.iter().any(|name| failure.is(name))
                        && limits.iter().any(|limit| limit.recent) =>
                {
                    limits.retain(|limit| !limit.recent);
                }
                Err(failure) => return Err(self.failed("change", failure)),
            }
        }
        Ok(())
    }

    /// Calls a method whose first argument is the unit's name; gives the path of a job that it started.
    fn named(
        &self,
        bus: &mut Bus,
        method: &str,
        signature: &str,
        rest: impl FnOnce(&mut Writer),
    ) -> std::result::Result<Option<String>, Failure> {
        let mut arguments = Writer::default();
        arguments.string(self.name);
        rest(&mut arguments);
        let answer = bus.manager(method, signature, &arguments)?;
        let is_path = answer.signature == "o";
        Ok(is_path.then(|| answer.arguments().string()).flatten())
    }

    fn failed(&self, what: &str, reason: impl std::fmt::Display) -> Error {
        Error::Systemd { reason: format!("cannot {what} the unit {}: {reason}", self.name) }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        io::Error::other(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_path() {
        let root = Path::new("/sys/fs/cgroup");
        for (dir, name, slice) in [
            ("system.slice/docker-ID.scope", "docker-ID.scope", "system.slice"),
            ("a.slice/a-b.slice/x.scope", "x.scope", "a-b.slice"),
            ("docker-ID.scope", "docker-ID.scope", "-.slice"),
        ] {
            let dir = root.join(dir);
            let scope = Scope::at(root, &dir).unwrap();
            assert_eq!((scope.name, scope.slice), (name, slice));
        }
        let slice = root.join("kube.slice/kube-pod1.slice");
        assert!(Scope::at(root, &slice).unwrap_err().to_string().contains("needs a scope"));
    }
}
