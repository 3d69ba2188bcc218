//! The last steps of every process that starts in a container, init or exec'd: working directory,
//! seccomp, ids, capabilities, and the program itself.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, Uid, accessat, stat};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use sysbox_kernel::process::execve;
use sysbox_kernel::schedule::{set_memory_policy, set_personality};
use sysbox_seccomp::Program;

use super::channel::Channel;
use super::labels;
use crate::log;
use crate::plan::ProcessPlan;

/// Where a shell looks when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the ids of container root. After the user namespace was entered the process still has
/// the host's ids, which mean nobody inside.
pub fn become_root_inside() -> Result<()> {
    set_thread_groups(&[]).context("drop the supplementary groups")?;
    set_ids(0, 0).context("become root inside the user namespace")
}

fn set_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid).with_context(|| format!("set the group id {gid}"))?;
    set_thread_res_uid(uid, uid, uid).with_context(|| format!("set the user id {uid}"))
}

/// A process that has everything but its start.
#[derive(Debug)]
pub struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Does all that can fail, in the order that the kernel's rules ask for: a filter needs either
/// CAP_SYS_ADMIN or no_new_privs; ids need CAP_SETUID; capabilities come last.
pub fn prepare(
    plan: &ProcessPlan,
    program: Option<&Program>,
    channel: &Channel,
) -> Result<Prepared> {
    let mut env = plan.env.clone();
    if plan.variable("HOME").is_none_or(str::is_empty) {
        env.retain(|e| !e.to_bytes().starts_with(b"HOME="));
        env.push(CString::new(format!("HOME={}", home_of(plan.uid)))?);
    }
    inherit_over_exec(plan)?;
    drop_bounding_set(plan.capabilities.bounding)?;
    if plan.no_new_privileges {
        set_no_new_privs(true).context("set no_new_privs")?;
    } else {
        filter(plan, program, channel)?;
    }
    // As root first, for a directory that the user has no way to; as the user where that fails, for
    // one that only the user may enter (a network file system).
    let is_there = change_directory(&plan.cwd).is_ok();
    set_keep_capabilities(true).context("keep capabilities over the change of user")?;
    set_thread_groups(&plan.groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>())
        .context("set the supplementary groups (process.user.additionalGids)")?;
    set_ids(plan.uid, plan.gid)
        .context("process.user: are the ids within the container's range?")?;
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    apply_capabilities(plan)?;
    set_keep_capabilities(false)?;
    // With the rights that the program will have: CAP_DAC_OVERRIDE may be what lets it be started.
    if !is_there {
        change_directory(&plan.cwd)?;
    }
    let path = find_executable(plan)?;
    labels::apply(plan)?;
    if plan.no_new_privileges {
        filter(plan, program, channel)?;
    }
    Ok(Prepared { path, args: plan.args.clone(), env })
}

impl Prepared {
    /// The environment that the program will have.
    pub fn env(&self) -> &[CString] {
        &self.env
    }

    /// Becomes the program; returns only on failure.
    pub fn exec(self) -> anyhow::Error {
        let error = execve(&self.path, &self.args, &self.env);
        let path = self.path.to_string_lossy();
        anyhow::Error::from(error).context(format!("exec {path}"))
    }
}

/// What only the process itself can set and execve(2) keeps.
fn inherit_over_exec(plan: &ProcessPlan) -> Result<()> {
    if let Some(domain) = plan.schedule.personality {
        set_personality(domain).context("set the execution domain (linux.personality)")?;
    }
    if let Some(policy) = &plan.schedule.memory_policy {
        set_memory_policy(policy.mode, &policy.nodes)
            .context("set_mempolicy (linux.memoryPolicy)")?;
    }
    Ok(())
}

/// Installs the filter and hands its listener to the manager by way of the runtime.
fn filter(plan: &ProcessPlan, program: Option<&Program>, channel: &Channel) -> Result<()> {
    let Some(program) = program else { return Ok(()) };
    let install = |program: &Program| {
        sysbox_kernel::seccomp::install(program.as_bytes(), program.has_traps(), program.flags())
    };
    let installed = match install(program) {
        // The kernel allows one listener above a process, and an outer one is there: this is a
        // system container inside of another one, or WSL2.
        Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) && !plan.own_listener => {
            log::warn(
                "system calls of this container are handed to an outer listener (a system container \
                 around this one, WSL2): new proc and sysfs mounts and device nodes inside are what \
                 that one makes of them; everything else works, the locked mounts hold",
            );
            install(&program.without_traps())
        }
        other => other,
    };
    let listener = installed.context("install the seccomp filter (linux.seccomp)")?;
    if let Some(listener) = listener {
        channel.send("listener", &listener.as_raw_fd().to_string())?;
        channel.expect("attached")?;
    }
    Ok(())
}

fn drop_bounding_set(keep: CapabilitySet) -> Result<()> {
    for capability in CapabilitySet::all().iter() {
        if !keep.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("drop {capability:?} from the bounding set"));
                }
            }
        }
    }
    Ok(())
}

fn apply_capabilities(plan: &ProcessPlan) -> Result<()> {
    let c = plan.capabilities;
    let sets = CapabilitySets {
        effective: c.effective,
        permitted: c.permitted,
        inheritable: c.inheritable,
    };
    set_capabilities(None, sets).context("set the capabilities (process.capabilities)")?;
    clear_ambient_capability_set().context("clear the ambient capabilities")?;
    for capability in c.ambient.iter() {
        // As runc: one that is not permitted and inheritable is left out.
        if let Err(e) = configure_capability_in_ambient_set(capability, true) {
            log::warn(&format!("can't raise ambient capability CAP_{}: {e}", name(capability)));
        }
    }
    Ok(())
}

fn name(capability: CapabilitySet) -> String {
    capability.iter_names().map(|(name, _)| name).collect()
}

/// Changes into the working directory, and makes sure that it lies in the container: a leaked
/// descriptor could point outside (CVE-2024-21626).
fn change_directory(cwd: &Path) -> Result<()> {
    rustix::process::chdir(cwd)
        .with_context(|| format!("chdir to cwd ({:?}) set in config.json failed", cwd))?;
    let now = rustix::process::getcwd(Vec::new());
    if !now.is_ok_and(|path| path.to_bytes().first() == Some(&b'/')) {
        bail!("the working directory {cwd:?} is outside of the container's root");
    }
    Ok(())
}

/// The home directory of a user by the container's /etc/passwd; `/` when it is not listed.
fn home_of(uid: u32) -> String {
    let uid = uid.to_string();
    let lines = File::open("/etc/passwd").into_iter().flat_map(|f| BufReader::new(f).lines());
    // The file is the image's: whatever it holds only decides a variable inside.
    for line in lines.take(100_000).map_while(Result::ok) {
        let mut fields = line.split(':').skip(2);
        if fields.next() == Some(uid.as_str())
            && let Some(home) = fields.nth(2).filter(|h| !h.is_empty() && !h.contains('\0'))
        {
            return home.to_owned();
        }
    }
    "/".to_owned()
}

/// Looks the program up as execvp(3) would; engines read the words of the errors.
fn find_executable(plan: &ProcessPlan) -> Result<CString> {
    let name = plan.args[0].as_bytes();
    let quoted = String::from_utf8_lossy(name);
    if name.contains(&b'/') {
        let path = Path::new(OsStr::from_bytes(name));
        return match executable(path) {
            Ok(()) => Ok(plan.args[0].clone()),
            Err(Errno::NOENT) => {
                bail!("exec: \"{quoted}\": stat {quoted}: no such file or directory")
            }
            Err(Errno::ISDIR) => bail!("exec: \"{quoted}\": is a directory"),
            Err(e) if e == Errno::ACCESS => bail!("exec: \"{quoted}\": permission denied"),
            Err(e) => bail!("exec: \"{quoted}\": {e}"),
        };
    }
    let mut denied = false;
    let path = plan.variable("PATH").unwrap_or(DEFAULT_PATH);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(OsStr::from_bytes(name));
        match executable(&candidate) {
            Ok(()) => return Ok(CString::new(candidate.as_os_str().as_bytes())?),
            Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied && !name.is_empty() {
        bail!("exec: \"{quoted}\": permission denied");
    }
    bail!("exec: \"{quoted}\": executable file not found in $PATH")
}

fn executable(path: &Path) -> Result<(), Errno> {
    let stat = stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Where faccessat2(2) is filtered or missing, execve(2) itself will tell.
        Err(Errno::PERM | Errno::NOSYS) => Ok(()),
        other => other,
    }
}
