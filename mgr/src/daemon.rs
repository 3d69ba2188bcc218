//! The life of the daemon: one instance, started in order, stopped by a signal.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;
use sysbox_daemon::instance::Instance;
use sysbox_ipc::{Listener, paths};

use crate::Options;
use crate::api;
use crate::ids::SubidFiles;
use crate::manager::Manager;
use crate::options::Command::Hold;
use crate::server::Server;

/// How long a stop waits for containers that are being created.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Heaps of the memory allocator. The broker has dozens of threads for a moment when many containers
/// mount at once: each would leave a heap behind.
const HEAPS: i32 = 4;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// Stopping touches no container and no volume: they run on, and the next instance takes them up.
pub fn run(options: Options) -> anyhow::Result<()> {
    if let Some(Hold) = options.command {
        return Ok(sysbox_ipc::store::run_holder()?);
    }
    sysbox_daemon::log::init("sysbox-mgr", &options.log_level, options.log_to)?;
    if !rustix::process::geteuid().is_root() {
        bail!("sysbox-mgr must run as root: it makes user namespaces and mounts for containers");
    }
    enter_run_dir(options.run_dir.as_deref())?;

    sysbox_kernel::process::limit_heaps(HEAPS);
    // Blocked before the first thread starts, so that all threads leave them to the wait below.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("blocking signals")?;
    sysbox_daemon::usage::raise_descriptor_limit();

    let run_dir = paths::run_dir();
    make_dir(&run_dir, 0o711)?;
    make_dir(&options.data_root, 0o711)?;
    // The data too: two instances with run directories of their own must not share it.
    let only = |file: PathBuf| Instance::lock(&file, "sysbox-mgr", "--run-dir and --data-root");
    let _run_dir = only(run_dir.join("sysmgr.pid"))?;
    let _data_root = only(options.data_root.join("sysmgr.lock"))?;

    sysbox_daemon::usage::count_start(&run_dir.join("sysmgr.starts"));

    let files = SubidFiles {
        uids: options.subuid_file,
        gids: options.subgid_file,
        user: options.subid_user,
        fixed: options.fixed_subids,
    };
    let manager = Manager::start(&run_dir, &options.data_root, files)?;
    // Containers matter more than who looks at them.
    if let Err(e) = api::start(&manager, options.metrics) {
        tracing::error!("the API is not served: {e}");
    }
    let socket = paths::mgr_socket();
    let listener = match activated() {
        Some(listener) => listener,
        None => {
            Listener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?
        }
    };
    let server = Server::start(listener, manager.clone()).context("starting to accept calls")?;
    notify(&[NotifyState::Ready]);
    tracing::info!(socket = %socket.display(), data_root = %options.data_root.display(), "ready");

    let signal = signals.wait().context("waiting for a signal")?;
    tracing::info!("{signal}: stopping; containers run on");
    notify(&[NotifyState::Stopping]);
    server.stop(STOP_PATIENCE);
    manager.stop(&run_dir);
    // The socket stays: a caller that comes now finds nobody listening and waits for the next
    // instance, where a missing socket would tell it that the daemon was never started.
    Ok(())
}

/// The socket for the runtime, if systemd listens on it for us: `sysbox-mgr.socket`, of
/// `ListenSequentialPacket=`. What was sent to it before this process ran is not lost.
fn activated() -> Option<Listener> {
    let passed = sysbox_ipc::store::sockets().into_iter();
    passed.filter(|(name, _)| name == "sysbox-mgr.socket").map(|(_, fd)| fd.into()).next()
}

/// Makes `--run-dir` hold for the whole process. The paths of the sockets, ours and that of
/// `sysbox-fs`, come from the environment, which a process cannot safely change once it runs: so the
/// program is executed again, as the same process, with it set.
fn enter_run_dir(wanted: Option<&Path>) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let wanted = std::path::absolute(wanted).context("--run-dir")?;
    if paths::run_dir() == wanted {
        return Ok(());
    }
    let program = std::env::current_exe().context("--run-dir")?;
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(paths::RUN_DIR_VARIABLE, &wanted)
        .exec();
    Err(error).context("starting again with the run directory set")
}

fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(|| format!("making directory {}", dir.display()))
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!("telling the service manager: {e}");
    }
}
