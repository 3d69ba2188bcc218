//! `exec`: one more process in a running container, in all of its namespaces (the user namespace
//! too), its cgroup, and behind its seccomp filter.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime as oci;
use rustix::process::setsid;
use sysbox_cgroups::Entrance;
use sysbox_ipc::{MgrClient, crash};
use sysbox_kernel::ns::{ThreadNameSpaceType, move_into_thread_name_spaces, pidfd};
use sysbox_kernel::process::{
    CloneFlags, Fork, clone_process, clone_process_into, close_all_but, exit_now, keep_over_exec,
    reset_signals, wait_pidfd,
};
use sysbox_seccomp::Program;

use super::channel::Channel;
use super::console::{Console, Terminal, send_fd};
use super::create::write_pid_file;
use super::init::own_standard_streams;
use super::listener::{self, Taker};
use super::process::{become_root_inside, prepare};
use super::start::INIT_LEAF;
use super::{foreground, labels, limits, rdt, subcgroup};
use crate::log;
use crate::plan::ProcessPlan;
use crate::state::{Directory, State, Status, is_alive};

/// What `exec` is asked to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process, already converted like the container's own.
    pub process: oci::Process,
    /// Who gets the terminal, with `--console-socket`.
    pub terminal: Terminal,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`
    pub pid_file: Option<PathBuf>,
    /// `--detach`
    pub detach: bool,
    /// `--preserve-fds`
    pub preserve_fds: u32,
    /// Sockets of systemd's socket activation, which come before those of `preserve_fds`.
    pub listen_fds: u32,
    /// `--ignore-paused`
    pub ignore_paused: bool,
    /// `--cgroup`, in runc's form `[controller,...:]path`.
    pub cgroups: Vec<String>,
}

/// Starts the process; returns its exit code, or 0 at once when detached.
pub fn exec(directory: &Directory, request: &Request) -> Result<i32> {
    let timer = log::Phases::start("exec");
    let state = directory.load()?;
    match state.status(directory) {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Paused if !request.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let spec = directory.spec()?;
    let mut plan = ProcessPlan::new(&request.process, spec.linux().as_ref())?;
    plan.pass_sockets(request.listen_fds);
    request.terminal.check(plan.terminal)?;
    labels::check(&plan, None)?;
    let places = subcgroup::parse(&request.cgroups)?;
    let init = pidfd(state.init.pid).context("open a pidfd of the container's init")?;
    // The pid could have been given away before it was opened; it cannot any more.
    ensure!(is_alive(&state.init), "cannot exec in a stopped container");
    let program = program(&spec, &state)?;
    let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let agent = listener::agent(profile, state.to_oci(Status::Running));
    let manager = match &program {
        Some(program) if agent.is_none() && program.has_traps() => Some(MgrClient::connect()?),
        _ => None,
    };
    let id = directory.manager_id();
    let taker = agent.or_else(|| Some(Taker::Broker { manager: manager.as_ref()?, id }));
    timer.mark("prepare");
    crash::point("exec.begun");

    let (channel, theirs) = Channel::pair()?;
    let entrance = state.cgroup.entrance_exec(INIT_LEAF).context("open the cgroup")?;
    let (fork, inside) = first_process(&entrance)?;
    let Fork::Parent { pidfd: first, .. } = fork else {
        drop(channel);
        let joined = if inside { entrance.join_v1() } else { Ok(()) };
        match joined.context("enter the cgroup").and_then(|()| enter(&init)) {
            Ok(Fork::Child) => {
                let preserved = request.listen_fds + request.preserve_fds;
                run(&plan, program.as_ref(), preserved, &theirs)
            }
            Ok(Fork::Parent { pid, .. }) => {
                let _ = theirs.send("born", &pid.to_string());
            }
            Err(e) => theirs.send_error(&e),
        }
        exit_now(0)
    };
    drop(theirs);
    let pid: i32 = channel.expect("born").context("enter the container")?.parse()?;
    let process = pidfd(pid).context("open a pidfd of the new process")?;
    wait_pidfd(&first).context("wait for the first process")?;
    // The words of runc's own log, which scripts wait for.
    log::debug(&format!("nsexec container setup: the new process is {pid}"));
    let served: Result<_> = (|| {
        if !inside {
            state.cgroup.attach_exec(pid, INIT_LEAF).context("put the process into the cgroup")?;
        }
        subcgroup::enter(&state.cgroup, &places, pid)?;
        rdt::add_exec(directory, pid)?;
        limits::apply_to_process(pid, &plan, state.system_container)?;
        own_standard_streams(state.ids.host_uid(plan.uid), state.ids.host_gid(plan.gid));
        crash::point("exec.born");
        channel.send("go", "")?;
        let master = serve(request, plan.terminal, taker.as_ref(), &channel, (pid, &process))?;
        if let Some(socket) = &request.pidfd_socket {
            send_fd(socket, "pidfd", process.as_fd()).context("send the pidfd of the process")?;
        }
        Ok(master)
    })();
    let master = served.inspect_err(|_| {
        let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
        let _ = wait_pidfd(&process);
    })?;
    timer.mark("start");
    if let Some(pid_file) = &request.pid_file {
        write_pid_file(pid_file, pid)?;
    }
    if request.detach { Ok(0) } else { foreground::wait(&process, master) }
}

/// Makes the process that enters, born in the container's cgroup unless the container has changed
/// that just now so that it takes no processes; then the flag is false.
fn first_process(entrance: &Entrance) -> Result<(Fork, bool)> {
    match clone_process_into(CloneFlags::NONE, entrance.unified()) {
        Ok(fork) => Ok((fork, true)),
        Err(_) => {
            let fork = clone_process(CloneFlags::NONE).context("make the first process")?;
            Ok((fork, false))
        }
    }
}

/// Answers the new process until its program runs: the channel closes by itself on exec.
/// Returns the terminal's master if the runtime keeps it.
fn serve(
    request: &Request,
    terminal: bool,
    taker: Option<&Taker<'_>>,
    channel: &Channel,
    (pid, process): (i32, &OwnedFd),
) -> Result<Option<OwnedFd>> {
    let mut kept = None;
    if terminal {
        kept = request.terminal.deliver(channel.receive_fd("console")?)?;
        channel.send("taken", "")?;
    }
    let mut ready = false;
    loop {
        match (channel.receive()?, taker) {
            (Some((word, text)), Some(taker)) if word == "listener" => {
                taker.take(process, pid, &text)?;
                channel.send("attached", "")?;
            }
            (Some((word, _)), _) if word == "ready" => {
                log::debug("child process in init(), setns_init: about to exec");
                ready = true;
            }
            (Some((word, _)), _) => bail!("the new process sent an unexpected \"{word}\""),
            (None, _) if ready => return Ok(kept),
            (None, _) => bail!("the new process died before it could start its program"),
        }
    }
}

/// The container's own filter, from the cache.
fn program(spec: &oci::Spec, state: &State) -> Result<Option<Program>> {
    let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    super::create::seccomp(profile, state.system_container, state.traps)
}

/// Joins all namespaces at once; the kernel takes the user namespace first, so that container
/// root's rights cover the others. Being born in a pid namespace takes one more clone.
fn enter(init: &OwnedFd) -> Result<Fork> {
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(init.as_fd(), all | ThreadNameSpaceType::TIME)
        // A kernel without time namespaces.
        .or_else(|_| move_into_thread_name_spaces(init.as_fd(), all))
        .context("join the container's namespaces")?;
    clone_process(CloneFlags::SIBLING).context("make the process")
}

fn run(plan: &ProcessPlan, program: Option<&Program>, preserve_fds: u32, channel: &Channel) -> ! {
    let steps = || -> Result<()> {
        close_all_but(preserve_fds, &[channel.as_fd()])?;
        channel.expect("go")?;
        reset_signals();
        become_root_inside()?;
        setsid().context("make a session")?;
        if plan.terminal {
            let console = Console::open(plan)?;
            console.adopt()?;
            channel.send_fd("console", console.master.as_fd())?;
            channel.expect("taken")?;
        }
        let prepared = prepare(plan, program, channel)?;
        for fd in 3..3 + preserve_fds {
            keep_over_exec(i32::try_from(fd)?).context("keep a preserved descriptor")?;
        }
        channel.send("ready", "")?;
        Err(prepared.exec())
    };
    if let Err(e) = steps() {
        channel.send_error(&e);
    }
    exit_now(255)
}
