//! Hooks of the runtime-spec: programs of the host that are told the container's state.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Who runs a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The runtime, in the directory of the bundle. A hook without `env` has the runtime's, as with
    /// runc: it was written for the host, and looks for its programs in the engine's `PATH`.
    Runtime,
    /// Init, in the container's namespaces. Such a hook has the `env` that it was given and nothing
    /// else: what comes from the image (`LD_PRELOAD`!) must not get into a program of the host
    /// (`startContainer` is one of the container: [`run_start_container`]).
    Init,
}

/// Runs hooks one after the other; the first failure ends it.
pub fn run(kind: &str, hooks: Option<&Vec<oci::Hook>>, state: &oci::State, by: By) -> Result<()> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(hook, state, by).with_context(|| {
            format!("error running {kind} hook #{index}: {}", hook.path().display())
        })?;
    }
    Ok(())
}

/// Runs hooks whose failure is only worth a warning (poststart, poststop); returns the warnings.
pub fn run_all(kind: &str, hooks: Option<&Vec<oci::Hook>>, state: &oci::State) -> Vec<String> {
    hooks
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(index, hook)| {
            let error = run_one(hook, state, By::Runtime).err()?;
            let path = hook.path().display();
            let error = crate::log::chain(&error);
            Some(format!("error running {kind} hook #{index}: {path}: {error}"))
        })
        .collect()
}

/// Runs a `startContainer` hook, a program of the container's: without an environment of its own it has
/// that of the container's process, as in runc.
pub fn run_start_container(
    hooks: Option<&Vec<oci::Hook>>,
    state: &oci::State,
    env: &[CString],
) -> Result<()> {
    let entry = |entry: &CString| entry.to_str().map(str::to_owned).ok();
    let env: Vec<String> = env.iter().filter_map(entry).collect();
    let with_env = |hook: &oci::Hook| {
        let mut hook = hook.clone();
        if hook.env().is_none() {
            hook.set_env(Some(env.clone()));
        }
        hook
    };
    let hooks = hooks.map(|hooks| hooks.iter().map(with_env).collect());
    run("startContainer", hooks.as_ref(), state, By::Init)
}

fn run_one(hook: &oci::Hook, state: &oci::State, by: By) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let environment = hook.env().as_ref();
    if by == By::Runtime {
        command.current_dir(state.bundle());
    }
    if by == By::Init || environment.is_some_and(|entries| !entries.is_empty()) {
        command.env_clear();
    }
    command.args(args);
    for entry in environment.into_iter().flatten() {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start it")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is none of our business.
        let _ = stdin.write_all(&serde_json::to_vec(state)?);
    }
    let timeout = hook.timeout().and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0);
    if let Some(timeout) = timeout.map(Duration::from_secs) {
        end_after(&mut child, timeout)?;
    }
    let mut message = String::new();
    if let Some(stderr) = child.stderr.take() {
        // A daemon that the hook left behind may hold the pipe: do not wait for its end.
        let _ = read_available(stderr, &mut message, &mut child);
    }
    let status = child.wait().context("wait for it")?;
    if !status.success() {
        bail!("{}, stdout: , stderr: {}", ending(status), message.trim());
    }
    Ok(())
}

/// How a hook ended, in the words of Go that runc's users know.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let name = match signal {
                1 => "hangup",
                2 => "interrupt",
                6 => "aborted",
                9 => "killed",
                11 => "segmentation fault",
                13 => "broken pipe",
                15 => "terminated",
                31 => "bad system call",
                other => return format!("signal: signal {other}"),
            };
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {name}{core}")
        }
        (None, None) => status.to_string(),
    }
}

fn end_after(child: &mut Child, timeout: Duration) -> Result<()> {
    let pid = i32::try_from(child.id())?;
    let pidfd = sysbox_kernel::ns::pidfd(pid).context("open a pidfd")?;
    let limit = Timespec { tv_sec: i64::try_from(timeout.as_secs())?, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    if ended == 0 {
        child.kill()?;
        child.wait()?;
        bail!("it did not end within {timeout:?} (hooks[].timeout) and was killed");
    }
    Ok(())
}

fn read_available(
    mut stderr: impl Read + AsFd,
    message: &mut String,
    child: &mut Child,
) -> Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let ready = poll(&mut [PollFd::new(&stderr, PollFlags::IN)], Some(&tick))?;
        if ready == 0 {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            continue;
        }
        match stderr.read(&mut buffer)? {
            0 => return Ok(()),
            n if message.len() < 16 * 1024 => {
                message.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            _ => {}
        }
    }
}
