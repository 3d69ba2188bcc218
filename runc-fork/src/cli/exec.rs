//! `exec`: one more process in a running container.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use oci_spec::runtime as oci;

use super::Global;
use crate::log;
use crate::prepare;
use crate::run::console::Terminal;
use crate::run::exec::{Request, exec};
use crate::state::Directory;

/// execute new process inside the container
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a pidfd of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// current working directory in the container
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// set environment variables
    #[arg(short, long)]
    pub env: Vec<String>,
    /// allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(short, long)]
    pub user: Option<String>,
    /// additional gids
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// path to the process.json
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// set the SELinux label of the process
    #[arg(long)]
    pub process_label: Option<String>,
    /// set the AppArmor profile of the process
    #[arg(long)]
    pub apparmor: Option<String>,
    /// set no_new_privs on the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// add a capability to the bounding, effective and permitted sets of the process
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// run the process in an existing sub-cgroup, as [<controller>[,<controller>...]:]<path>
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// container id
    pub id: String,
    /// command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Runs the command; returns the exit code of the process, 0 when detached.
pub fn run(global: &Global, args: &ExecArgs) -> Result<i32> {
    let directory = Directory::new(&global.root, &args.id)?;
    // Before anything else, so that the message is about the container if there is none.
    directory.load()?;
    let spec = directory.spec()?;
    let mut process = match &args.process {
        Some(path) => prepare::load_process(path)?,
        None => from_arguments(&spec, args)?,
    };
    labels(&mut process, args);
    let mut process = prepare::convert_process(process, &spec)?;
    // After the conversion, which gives users other than root none.
    add_capabilities(&mut process, &args.cap);
    let socket = args.console_socket.clone();
    let terminal =
        if args.detach { Terminal::Detached(socket) } else { Terminal::Foreground(socket) };
    exec(
        &directory,
        &Request {
            process,
            terminal,
            pidfd_socket: args.pidfd_socket.clone(),
            pid_file: args.pid_file.clone(),
            detach: args.detach,
            preserve_fds: args.preserve_fds,
            listen_fds: super::listen_fds(),
            ignore_paused: args.ignore_paused,
            cgroups: args.cgroup.clone(),
        },
    )
}

/// The container's own process with another command, as runc does without `--process`.
fn from_arguments(spec: &oci::Spec, args: &ExecArgs) -> Result<oci::Process> {
    ensure!(!args.command.is_empty(), "process args cannot be empty");
    let mut process = spec.process().clone().context("process is missing in config.json")?;
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    let mut user = process.user().clone();
    if let Some(wanted) = &args.user {
        let (uid, gid) =
            wanted.split_once(':').map_or((wanted.as_str(), None), |(u, g)| (u, Some(g)));
        user.set_uid(uid.parse().with_context(|| format!("--user: {uid:?} is not a number"))?);
        if let Some(gid) = gid {
            user.set_gid(gid.parse().with_context(|| format!("--user: {gid:?} is not a number"))?);
        }
    }
    if !args.additional_gids.is_empty() {
        user.set_additional_gids(Some(args.additional_gids.clone()));
    }
    process.set_user(user);
    Ok(process)
}

fn labels(process: &mut oci::Process, args: &ExecArgs) {
    if args.apparmor.is_some() {
        process.set_apparmor_profile(args.apparmor.clone());
    }
    if args.process_label.is_some() {
        process.set_selinux_label(args.process_label.clone());
    }
}

/// As runc: an ambient capability only where it is inheritable already.
fn add_capabilities(process: &mut oci::Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    for name in names {
        let Ok(capability) = serde_json::from_value::<oci::Capability>(name.as_str().into()) else {
            // As runc: an engine may be newer than this build.
            log::warn(&format!("--cap: {name} is not known to this version; ignored"));
            continue;
        };
        let with = |set: &Option<oci::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let inheritable = sets.inheritable().as_ref().is_some_and(|s| s.contains(&capability));
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        if inheritable {
            sets.set_ambient(with(sets.ambient()));
        }
    }
    process.set_capabilities(Some(sets));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_but_not_made_ambient() {
        let mut process = oci::Process::default();
        process.set_capabilities(None);
        add_capabilities(&mut process, &["CAP_NET_ADMIN".into(), "NONE_SUCH".into()]);
        let sets = process.capabilities().as_ref().unwrap();
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert!(set.as_ref().unwrap().contains(&oci::Capability::NetAdmin));
        }
        assert!(!sets.ambient().as_ref().is_some_and(|s| s.contains(&oci::Capability::NetAdmin)));
    }
}
