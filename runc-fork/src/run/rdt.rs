//! `linux.intelRdt`: the container's group in the kernel's resctrl file system
//! ([`sysbox_cgroups::rdt`] is what it means; here is when).
//!
//! Which group it is stands in a file of the container's state directory, written before anything is made:
//! whoever finds what a killed runtime has left can take it away.

use anyhow::{Context, Result};
use oci_spec::runtime as oci;
use sysbox_cgroups::rdt::{Group, Resctrl};

use crate::log;
use crate::state::{Directory, State};

/// Makes the group of a new container, if its spec asks for one.
pub fn create(directory: &Directory, id: &str, spec: &oci::Spec) -> Result<Option<Group>> {
    let Some(wanted) = spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    make(directory, id, wanted).map(Some)
}

fn make(directory: &Directory, id: &str, wanted: &oci::LinuxIntelRdt) -> Result<Group> {
    let group = Group::plan(&Resctrl::find()?, id, wanted)?;
    directory.save_rdt(&group)?;
    group.create(wanted).inspect_err(|_| {
        let _ = directory.forget_rdt();
    })?;
    Ok(group)
}

/// Puts an exec'd process where the container's others are.
pub fn add_exec(directory: &Directory, pid: i32) -> Result<()> {
    match directory.rdt()? {
        // A class that its administrator has removed: the others are in none any more, either.
        Some(group) if group.exists() => Ok(group.add(pid)?),
        _ => Ok(()),
    }
}

/// Changes the limits of a running container. One that has no group gets one, with all its processes.
pub fn update(directory: &Directory, state: &State, l3: &str, memory: &str) -> Result<()> {
    if l3.is_empty() && memory.is_empty() {
        return Ok(());
    }
    if let Some(group) = directory.rdt()? {
        return Ok(group.update(l3, memory)?);
    }
    let group = make(directory, &state.id, &oci::LinuxIntelRdt::default())?;
    let fill = || -> Result<()> {
        group.update(l3, memory)?;
        // Twice: a process that is forked in between is in the class of its parent, which may have been
        // looked at too early.
        for _ in 0..2 {
            let pids = state.cgroup.pids().context("list the container's processes")?;
            group.add_all(&pids)?;
        }
        Ok(())
    };
    fill().inspect_err(|_| {
        group.undo();
        let _ = directory.forget_rdt();
    })
}

/// Removes what was made for a container; tells what could not be removed.
pub fn remove(directory: &Directory) {
    let removed = directory.rdt().and_then(|group| match group {
        Some(group) => Ok(group.remove()?),
        None => Ok(()),
    });
    if let Err(e) = removed {
        log::warn(&format!("{e:#}"));
    }
}
