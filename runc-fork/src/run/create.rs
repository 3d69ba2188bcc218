//! `create`: one flat sequence from the spec to an init that waits for `start`.
//!
//! Whatever fails, everything done so far is undone in reverse; the manager takes back its part by
//! itself when the connection closes before the commit.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use oci_spec::runtime as oci;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use sysbox_cgroups::{Cgroup, Driver, Layout};
use sysbox_ipc::{MgrClient, crash, proto};
use sysbox_seccomp::Program;

use super::console::{Terminal, send_fd};
use super::hooks::{self, By};
use super::host_view::HostView;
use super::init::{Init, open_start_fifo, own_standard_streams};
use super::listener::{self, Taker};
use super::namespaces::launch;
use super::undo::Undo;
use super::{copy_up, labels, limits, netdev, notify, rdt, stage, tree, uplink, userns};
use crate::log;
use crate::plan::Plan;
use crate::prepare::{self, Prepared};
use crate::state::{Directory, Identity, State, Status, VERSION};

/// What `create` is asked to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--root`
    pub root: PathBuf,
    /// Container id.
    pub id: String,
    /// `--bundle`
    pub bundle: PathBuf,
    /// Who gets the terminal, with `--console-socket`.
    pub terminal: Terminal,
    /// `--pidfd-socket`
    pub pidfd_socket: Option<PathBuf>,
    /// `--pid-file`
    pub pid_file: Option<PathBuf>,
    /// `--preserve-fds`
    pub preserve_fds: u32,
    /// Sockets of systemd's socket activation, which come before those of `preserve_fds`.
    pub listen_fds: u32,
    /// The container gets a session keyring of its own (not with `--no-new-keyring`).
    pub new_keyring: bool,
    /// `--systemd-cgroup`
    pub systemd_cgroup: bool,
}

/// A container that waits for `start`.
#[derive(Debug)]
pub struct Created {
    /// What the runtime remembers of it.
    pub state: State,
    /// Master of its terminal, where the runtime keeps it.
    pub master: Option<OwnedFd>,
}

/// Creates the container.
pub fn create(request: &Request) -> Result<Created> {
    let timer = log::Phases::start("create");
    let directory = Directory::new(&request.root, &request.id)?;
    let bundle = request
        .bundle
        .canonicalize()
        .with_context(|| format!("find the bundle {}", request.bundle.display()))?;
    let prepared = prepare::prepare(&bundle)?;
    let spec = &prepared.bundle.spec;
    let terminal = spec.process().as_ref().and_then(oci::Process::terminal).unwrap_or(false);
    request.terminal.check(terminal)?;
    let driver = if request.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
    let cgroup = plan_cgroup(spec, driver, &request.id)?;
    timer.mark("spec");
    crash::point("create.started");

    let manager = MgrClient::connect()?;
    directory.create()?;
    let mut undo = Undo::new(&directory);
    let _lock = directory.lock()?;
    let rootfs = open_rootfs(&prepared.bundle.rootfs)?;
    let joined = userns::to_join(spec)?;
    let registration = manager.register(
        registration(&prepared, &cgroup, &directory, joined.is_some())?,
        rootfs.as_fd(),
        joined.as_ref().map(AsFd::as_fd),
    )?;
    undo.manager = Some(&manager);
    let mut converted = prepared.convert(&registration.reply)?;
    notify::add(&mut converted, &directory)?;
    let uplink = uplink::prepare(&prepared, &mut converted, joined.is_some())?;
    let mut plan =
        Plan::new(&request.id, &bundle, &converted, &registration.reply, &prepared.options)?;
    plan.process.pass_sockets(request.listen_fds);
    plan.heed_user_namespace(spec);
    stage::check_places(&plan.mounts, rootfs.as_fd())?;
    stage::take_over_modes(&mut plan.mounts, rootfs.as_fd())?;
    drop(rootfs);
    labels::check(&plan.process, plan.mount_label.as_deref())?;
    timer.mark("register");
    crash::point("create.registered");

    let placeholder = limits::create_cgroup(&cgroup, &request.id, &converted)?;
    // Not before: a cgroup that is refused because it is in use is somebody else's.
    undo.cgroup = Some(cgroup.clone());
    limits::apply_to_cgroup(&cgroup, &converted)?;
    undo.rdt = rdt::create(&directory, &request.id, &converted)?;
    if let Err(e) = cgroup.guard_switches() {
        // Below another system container it is that one's program that holds.
        log::debug(&format!("switches of the host are not guarded: {e}"));
    }
    let entrance = cgroup.entrance().context("open the cgroup")?;
    let profile = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let program = seccomp(profile, prepared.options.system_container, true)?;
    make_start_fifo(&directory)?;
    let start = open_start_fifo(&directory.start_fifo())?;
    timer.mark("cgroup");
    crash::point("create.cgroup");

    let host = HostView::remember()?;
    tree::enter_private_namespace()?;
    let preserved_fds = request.listen_fds + request.preserve_fds;
    let launched = launch(&plan, registration.userns.as_fd(), &entrance, |channel| {
        let init = Init {
            plan: &plan,
            program: program.as_ref(),
            start: start.as_fd(),
            preserved_fds,
            new_keyring: request.new_keyring,
            hooks: converted.hooks().as_ref(),
            state: hook_state(&request.id, &bundle, spec),
        };
        init.run(channel)
    })?;
    let (pid, pidfd, channel) = (launched.pid, &launched.pidfd, &launched.channel);
    undo.init = Some(pidfd.try_clone()?);
    // The words of runc's own log, which scripts wait for.
    log::debug(&format!("nsexec started, nsexec container setup: init is process {pid}"));
    drop(placeholder);
    if let Some(group) = &undo.rdt {
        group.add(pid)?;
    }
    // Not before: the process that enters has lost host root's rights over what is not its own.
    limits::delegate_cgroup(&cgroup, &plan)?;
    limits::apply_to_process(pid, &plan.process, prepared.options.system_container)?;
    own_standard_streams(plan.ids.host_uid(plan.process.uid), plan.ids.host_gid(plan.process.gid));
    timer.mark("launch");
    crash::point("create.init");

    let namespace = |name: &str| -> Result<OwnedFd> {
        let path = format!("/proc/{pid}/ns/{name}");
        Ok(fs::File::open(&path).with_context(|| format!("open {path}"))?.into())
    };
    let (pidns, netns, ipcns) = (namespace("pid")?, namespace("net")?, namespace("ipc")?);
    if let Some(uplink) = uplink {
        uplink.connect(netns.as_fd())?;
    }
    netdev::move_all(&plan.network_devices, netns.as_fd())?;
    let emulated = Path::new(&registration.reply.emulated_dir);
    let parts = tree::Parts {
        userns: registration.userns.as_fd(),
        pidns: pidns.as_fd(),
        netns: netns.as_fd(),
        ipcns: ipcns.as_fd(),
        devpts: &|| launched.first().devpts(),
        emulated: (emulated, &registration.reply.emulated_files),
    };
    let built = tree::build(&plan, &parts)?;
    undo.work.clone_from(&built.work_directory);
    for warning in &built.warnings {
        log::warn(warning);
    }
    copy_up::fill(&plan, built.root.as_fd())?;
    launched.first_is_done()?;
    // Hooks are the host's programs and see the host's mounts.
    host.restore()?;
    timer.mark("tree");
    crash::point("create.mounted");

    let state = State {
        version: VERSION,
        id: request.id.clone(),
        oci_version: converted.version().clone(),
        bundle: bundle.clone(),
        rootfs: plan.rootfs.clone(),
        init: Identity::of(pid).context("the container's init has died")?,
        created: log::now_rfc3339(),
        annotations: spec.annotations().iter().flatten().map(clone_pair).collect(),
        init_system: prepared.init_system().map(|init| init.name().to_owned()),
        cgroup,
        ids: plan.ids.clone(),
        work_directory: built.work_directory.clone(),
        own_pid_namespace: plan.namespaces.own_pid,
        traps: program.as_ref().is_some_and(Program::has_traps),
        system_container: prepared.options.system_container,
    };
    run_hooks(&converted, &state)?;
    timer.mark("hooks");

    channel.send("go", &pid.to_string())?;
    channel.send_fd("tree", built.root.as_fd())?;
    drop(built);
    let creating = hook_state(&request.id, &bundle, spec);
    let taker = listener::agent(profile, creating)
        .unwrap_or_else(|| Taker::Broker { manager: &manager, id: directory.manager_id() });
    let master = serve_init(request, plan.terminal, &taker, channel, pid, pidfd)?;
    log::debug("child process in init() waits for start");
    log::debug("init: closing the pipe to signal completion");
    if let Some(socket) = &request.pidfd_socket {
        send_fd(socket, "pidfd", pidfd.as_fd()).context("send the pidfd of init")?;
    }
    timer.mark("init");
    directory.save_spec(&converted)?;
    directory.save(&state)?;
    crash::point("create.recorded");
    if let Some(pid_file) = &request.pid_file {
        write_pid_file(pid_file, pid)?;
    }
    manager.commit(&directory.manager_id(), pid, pidfd.as_fd(), log::warnings())?;
    undo.disarm();
    timer.mark("commit");
    crash::point("create.committed");
    Ok(Created { state, master })
}

/// Answers init until it is ready; returns the terminal's master if the runtime keeps it.
fn serve_init(
    request: &Request,
    terminal: bool,
    taker: &Taker<'_>,
    channel: &super::channel::Channel,
    pid: i32,
    pidfd: &OwnedFd,
) -> Result<Option<OwnedFd>> {
    let mut kept = None;
    if terminal {
        kept = request.terminal.deliver(channel.receive_fd("console")?)?;
        channel.send("taken", "")?;
    }
    loop {
        match channel.receive()? {
            Some((word, text)) if word == "listener" => {
                taker.take(pidfd, pid, &text)?;
                channel.send("attached", "")?;
            }
            Some((word, _)) if word == "ready" => return Ok(kept),
            Some((word, _)) => bail!("init sent an unexpected \"{word}\""),
            None => bail!(
                "the container's init (pid {pid}) died while it was being set up; was it killed for lack of memory (see the memory limit)?"
            ),
        }
    }
}

/// The program for a container's profile (the engine's, not merged); `None` if it allows all.
pub fn seccomp(
    profile: Option<&oci::LinuxSeccomp>,
    system_container: bool,
    traps: bool,
) -> Result<Option<Program>> {
    let request = sysbox_seccomp::Request { profile, system_container, traps };
    let cache = sysbox_ipc::paths::run_dir().join("seccomp");
    let (program, warnings) = sysbox_seccomp::program(&request, Some(&cache))?;
    for warning in warnings {
        log::warn(warning.as_str());
    }
    log::debug(&format!("seccomp filter flags: {}", program.flags()));
    Ok((!program.allows_everything()).then_some(program))
}

fn registration(
    prepared: &Prepared,
    cgroup: &Cgroup,
    directory: &Directory,
    joins_user_namespace: bool,
) -> Result<proto::Register> {
    let spec = &prepared.bundle.spec;
    let destinations = spec.mounts().iter().flatten();
    // A namespace that is joined has its mappings; engines fill in something (Podman does).
    let mappings = |maps: Option<&Vec<oci::LinuxIdMapping>>| {
        maps.filter(|_| !joins_user_namespace)
            .into_iter()
            .flatten()
            .map(|m| proto::IdMapping {
                container_id: m.container_id(),
                host_id: m.host_id(),
                size: m.size(),
            })
            .collect()
    };
    let linux = spec.linux().as_ref();
    Ok(proto::Register {
        id: directory.manager_id(),
        rootfs: prepared.bundle.rootfs.display().to_string(),
        uid_mappings: mappings(linux.and_then(|l| l.uid_mappings().as_ref())),
        gid_mappings: mappings(linux.and_then(|l| l.gid_mappings().as_ref())),
        id_range_size: prepared.options.id_range_size,
        mount_destinations: destinations.map(|m| m.destination().display().to_string()).collect(),
        cgroups: Some(proto::CgroupPaths {
            unified: cgroup.unified().map(|p| p.display().to_string()).unwrap_or_default(),
            v1: cgroup.v1().map(|(c, p)| (c.to_owned(), p.display().to_string())).collect(),
        }),
        state_dir: directory.path().display().to_string(),
        owner_dir: prepared.hints.owner_dir.display().to_string(),
        inner_stores: prepared.options.system_container,
        join_userns: false,
    })
}

/// The cgroup of a spec.
pub fn plan_cgroup(spec: &oci::Spec, driver: Driver, id: &str) -> Result<Cgroup> {
    let layout = Layout::detect().context("find the host's cgroup hierarchies")?;
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
    let path = path.map(|p| p.display().to_string());
    Ok(Cgroup::plan_with(driver, &layout, path.as_deref(), id)?)
}

fn open_rootfs(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
        .with_context(|| format!("open the root file system {} (root.path)", path.display()))
}

fn make_start_fifo(directory: &Directory) -> Result<()> {
    let path = directory.start_fifo();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .with_context(|| format!("make {}", path.display()))
}

fn run_hooks(spec: &oci::Spec, state: &State) -> Result<()> {
    let Some(all) = spec.hooks() else { return Ok(()) };
    let mut state = state.to_oci(Status::Created);
    state.set_status(oci::ContainerState::Creating);
    // Deprecated in the spec, but what Docker sets up networks with.
    #[allow(deprecated)]
    let prestart = all.prestart().as_ref();
    hooks::run("prestart", prestart, &state, By::Runtime)?;
    hooks::run("createRuntime", all.create_runtime().as_ref(), &state, By::Runtime)
}

/// The state for the hooks that init runs, which completes it by its pid.
fn hook_state(id: &str, bundle: &Path, spec: &oci::Spec) -> oci::State {
    let mut state = oci::State::default();
    state.set_version(spec.version().clone());
    state.set_id(id.to_owned());
    state.set_status(oci::ContainerState::Creating);
    state.set_bundle(bundle.to_owned());
    state.set_annotations(spec.annotations().clone());
    state
}

/// Writes the pid atomically: engines watch for the file.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().context("--pid-file: not a file name")?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("write the pid file {}", path.display()))
}

fn clone_pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}
