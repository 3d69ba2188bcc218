//! The systemd cgroup driver: the container's cgroup is a transient scope (systemd.scope(5)).
//!
//! On a host that systemd has booted with pure cgroup v2 it is the only one to write in its part of the
//! tree, and engines there use this driver: `linux.cgroupsPath` is `slice:prefix:name`, which is the unit
//! `prefix-name.scope` in that slice. systemd makes the directory, and removes it when the last process
//! has left it; everything in between is done by the kernel's files, as with the other driver.
//!
//! A scope starts with a process that exists, and a container's first process is to be born in a cgroup
//! that has its limits. The order therefore is:
//!
//! 1. a [`Placeholder`] is forked, and `StartTransientUnit` asked to put it into the new scope, with the
//!    limits as far as systemd knows them ([`property`] says why it has to know them);
//! 2. the limits are set in the cgroup itself ([`Cgroup::apply`]): all of them, exactly, and with an error
//!    for what is refused, which systemd only logs;
//! 3. the first process is born in the cgroup ([`Cgroup::entrance`]) and the placeholder dropped;
//! 4. the cgroup is delegated to container root ([`Cgroup::delegate`]).
//!
//! systemd is spoken to over D-Bus, which for five methods is a few hundred lines ([`message`], [`bus`])
//! and no bus daemon.

mod bus;
mod message;
mod placeholder;
mod property;
mod scope;

use std::path::Path;

use oci_spec::runtime::LinuxResources;

pub use placeholder::Placeholder;

use crate::apply;
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::procs;
use scope::Scope;

/// sd_booted(3): this directory exists if and only if systemd is the init system.
const BOOTED: &str = "/run/systemd/system";

/// Starts the scope of a cgroup of this driver.
pub(crate) fn start(cgroup: &Cgroup, id: &str, limits: &LinuxResources) -> Result<Placeholder> {
    if !Path::new(BOOTED).is_dir() {
        let reason = format!(
            "systemd does not run on this host (no {BOOTED}): use the cgroupfs driver (leave out \
             --systemd-cgroup)"
        );
        return Err(Error::Systemd { reason });
    }
    let scope = scope(cgroup)?;
    let dir = cgroup.main_dir();
    if procs::populated(dir).unwrap_or(false) {
        return Err(Error::InUse { path: dir.to_owned() });
    }
    scope.start(&format!("system container {id}"), &properties(limits)?)
}

/// Tells systemd about new limits.
pub(crate) fn update(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    scope(cgroup)?.set(properties(limits)?)
}

/// Stops the scope. Where its cgroup is gone systemd has done so by itself, or is about to.
pub(crate) fn stop(cgroup: &Cgroup) -> Result<()> {
    if cgroup.exists() { scope(cgroup)?.stop() } else { Ok(()) }
}

fn scope(cgroup: &Cgroup) -> Result<Scope<'_>> {
    let unified = cgroup.hierarchies().iter().find(|hierarchy| hierarchy.is_unified());
    let unified = unified.ok_or(Error::NoHierarchy)?;
    Scope::at(&unified.root, &unified.dir)
}

fn properties(limits: &LinuxResources) -> Result<Vec<property::Property>> {
    let settings = apply::unified_settings(limits)?;
    Ok(property::of_limits(settings.iter().map(|(file, value)| (file.as_str(), value.as_str()))))
}
