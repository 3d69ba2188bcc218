//! The systemd cgroup driver: the container's cgroup is a transient scope (systemd.scope(5)).
//!
//! On a host that systemd has booted with pure cgroup v2 it is the only one to write in its part of the
//! tree, and engines there use this driver: `linux.cgroupsPath` is `slice:prefix:name`, which is the unit
//! `prefix-name.scope` in that slice. systemd makes the directory, and removes it when the last process
//! has left it; everything in between is done by the kernel's files, as with the other driver.
//!
//! On a hybrid host the scope is that directory in the unified hierarchy, which has no controllers, in
//! systemd's own v1 hierarchy, and in those of the controllers that systemd knows. In the others (cpuset,
//! freezer, ...) it is made by us, at the same place; and we remove all.
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
mod devices;
mod message;
mod placeholder;
mod property;
mod scope;

use std::path::Path;

use oci_spec::runtime::LinuxResources;

pub use placeholder::Placeholder;

use crate::cgroup::{Cgroup, Hierarchy, SYSTEMD};
use crate::error::{Error, Result};
use crate::{apply, file, procs};
use property::{PERIOD, Property, QUOTA};
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
    scope.start(&format!("system container {id}"), &properties(cgroup, limits)?)
}

/// Tells systemd about new limits.
pub(crate) fn update(cgroup: &Cgroup, limits: &LinuxResources) -> Result<()> {
    scope(cgroup)?.set(properties(cgroup, limits)?)
}

/// Stops the scope. Where its cgroup is gone systemd has done so by itself, or is about to.
pub(crate) fn stop(cgroup: &Cgroup) -> Result<()> {
    if cgroup.exists() { scope(cgroup)?.stop() } else { Ok(()) }
}

fn scope(cgroup: &Cgroup) -> Result<Scope<'_>> {
    let all = cgroup.hierarchies().iter();
    // Without a unified hierarchy systemd keeps its units in one of its own.
    let own = |hierarchy: &&Hierarchy| hierarchy.controllers.iter().any(|name| name == SYSTEMD);
    let of_units =
        all.clone().find(|hierarchy| hierarchy.is_unified()).or_else(|| all.clone().find(own));
    let of_units = of_units.ok_or(Error::NoHierarchy)?;
    Scope::at(&of_units.root, &of_units.dir)
}

fn properties(cgroup: &Cgroup, limits: &LinuxResources) -> Result<Vec<Property>> {
    let mut settings = apply::settings(cgroup, limits)?;
    let given = |name: &str| settings.iter().any(|(file, _)| file == name);
    if given(QUOTA) && !given(PERIOD)
        // A quota is of the period that the cgroup has.
        && let Some(period) = cgroup.v1_dir("cpu").and_then(|dir| file::read(dir, PERIOD).ok())
    {
        settings.push((PERIOD.to_owned(), period));
    }
    let settings = settings.iter().map(|(file, value)| (file.as_str(), value.as_str()));
    let mut properties = property::of_limits(settings);
    if let Some(rules) = limits.devices().as_ref().filter(|_| cgroup.v1_dir("devices").is_some()) {
        properties.extend(devices::properties(rules)?);
    }
    Ok(properties)
}
