//! `delete`: nothing of the container stays behind but what belongs to the engine.

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use rustix::process::{Signal, pidfd_send_signal};
use sysbox_cgroups::{Cgroup, Driver};
use sysbox_ipc::{MgrClient, crash};
use sysbox_kernel::ns::pidfd;
use sysbox_kernel::process::wait_pidfd;

use super::create::plan_cgroup;
use super::undo::{remove_cgroup, remove_work_directory};
use super::{hooks, rdt};
use crate::log;
use crate::state::{Directory, State, Status, is_alive};

/// Deletes a stopped container, or with `force` any, also one whose `create` was killed half-way.
pub fn delete(directory: &Directory, id: &str, force: bool) -> Result<()> {
    if !directory.exists() {
        if force {
            // The manager may still know it: a runtime that was killed early in `create`.
            return unregister(directory);
        }
        bail!("container does not exist: {id}");
    }
    let _lock = directory.lock()?;
    crash::point("delete.begun");
    match directory.load() {
        Ok(state) => delete_known(directory, &state, force)?,
        Err(e) if !force => return Err(e),
        Err(e) => {
            log::warn(&format!("{id}: {e:#}; removing what is left of it"));
            end_unknown(directory, id);
        }
    }
    rdt::remove(directory);
    // After the processes, before the state: a manager that does not answer leaves a container
    // that can be deleted again.
    unregister(directory)?;
    crash::point("delete.unregistered");
    directory.remove()
}

fn delete_known(directory: &Directory, state: &State, force: bool) -> Result<()> {
    let status = state.status(directory);
    match status {
        Status::Stopped => {}
        // As runc: a container that was never started has nothing to lose.
        _ if force || status == Status::Created => kill_init(state)?,
        _ => bail!("cannot delete container {} that is not stopped: {}", state.id, status.as_str()),
    }
    remove_cgroup(&state.cgroup);
    crash::point("delete.cgroup");
    if let Some(work) = &state.work_directory {
        remove_work_directory(work);
    }
    poststop(directory, state);
    Ok(())
}

/// Ends a container of which only the spec can be read: its cgroup follows from that.
fn end_unknown(directory: &Directory, id: &str) {
    let Ok(spec) = directory.spec() else { return };
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone());
    let systemd = path.is_some_and(|path| path.display().to_string().matches(':').count() == 2);
    let driver = if systemd { Driver::Systemd } else { Driver::Cgroupfs };
    match plan_cgroup(&spec, driver, id) {
        Ok(cgroup) => remove_cgroup(&cgroup),
        Err(e) => log::warn(&format!("find the cgroup of {id}: {e:#}")),
    }
}

fn kill_init(state: &State) -> Result<()> {
    let process = pidfd(state.init.pid);
    if let Ok(process) = process
        && is_alive(&state.init)
    {
        let _ = state.cgroup.thaw();
        pidfd_send_signal(&process, Signal::KILL).context("kill init")?;
        end_all(&state.cgroup);
        // Reaped by whoever is its parent; as a child of ours (a failed `run`) it is reaped here.
        let _ = wait_pidfd(&process);
    }
    Ok(())
}

fn end_all(cgroup: &Cgroup) {
    if let Err(e) = cgroup.kill_all(9) {
        log::warn(&format!("kill the container's processes: {e}"));
    }
}

fn poststop(directory: &Directory, state: &State) {
    let Ok(spec) = directory.spec() else { return };
    let hooks = spec.hooks().as_ref().and_then(|h: &oci::Hooks| h.poststop().as_ref());
    for warning in hooks::run_all("poststop", hooks, &state.to_oci(Status::Stopped)) {
        log::warn(&warning);
    }
}

fn unregister(directory: &Directory) -> Result<()> {
    let manager = MgrClient::connect()
        .context("tell the manager that the container is gone; delete it again when it runs")?;
    Ok(manager.unregister(&directory.manager_id())?)
}
