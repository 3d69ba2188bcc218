//! exec

use anyhow::{Context, Result, ensure};
use oci_spec::runtime as oci;

use super::args::{ExecArgs, Global};
use crate::prepare;
use crate::run::exec::{Request, exec as run_exec};
use crate::state::Directory;

/// `exec`
pub fn exec(global: &Global, args: &ExecArgs) -> Result<i32> {
    let directory = Directory::new(&global.root, &args.id)?;
    let process = match &args.process {
        Some(path) => prepare::load_process(path)?,
        None => from_arguments(&directory, args)?,
    };
    let mut process = prepare::convert_process(process, &directory.spec()?)?;
    if args.detach && args.tty && args.console_socket.is_none() {
        process.set_terminal(Some(true));
    }
    run_exec(
        &directory,
        &Request {
            process,
            console_socket: args.console_socket.clone(),
            pid_file: args.pid_file.clone(),
            detach: args.detach,
            preserve_fds: args.preserve_fds,
            ignore_paused: args.ignore_paused,
        },
    )
}

/// The container's own process with another command, as runc does without `--process`.
fn from_arguments(directory: &Directory, args: &ExecArgs) -> Result<oci::Process> {
    ensure!(!args.command.is_empty(), "process args cannot be empty");
    let spec = directory.spec()?;
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
