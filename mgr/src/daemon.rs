//! The life of the daemon: one instance, started in order, stopped by a signal.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use sysbox_ipc::{Listener, paths};

use crate::Options;
use crate::api;
use crate::ids::SubidFiles;
use crate::manager::Manager;
use crate::options::Command::Hold;
use crate::server::Server;

/// How long a stop waits for containers that are being created.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How long a start waits for an earlier instance that was killed to be gone.
const DYING: Duration = Duration::from_secs(10);

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
    raise_descriptor_limit();

    let run_dir = paths::run_dir();
    make_dir(&run_dir, 0o711)?;
    make_dir(&options.data_root, 0o711)?;
    // The data too: two instances with run directories of their own must not share it.
    let _run_dir = single_instance(&run_dir.join("sysmgr.pid"))?;
    let _data_root = single_instance(&options.data_root.join("sysmgr.lock"))?;

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

/// Takes the lock that makes this the only instance; it is held for as long as the file is open.
fn single_instance(path: &PathBuf) -> anyhow::Result<File> {
    let shown = path.display();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
        .with_context(|| format!("opening {shown}"))?;
    let deadline = Instant::now() + DYING;
    while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if e != Errno::WOULDBLOCK {
            return Err(e).with_context(|| format!("locking {shown}"));
        }
        let mut pid = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
        if !is_dying(pid.trim()) || Instant::now() > deadline {
            bail!(
                "sysbox-mgr runs already, as process {} (it holds {shown}); stop that one first, or give another --run-dir and --data-root",
                pid.trim()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The lock counts, the number is only told to whoever comes second: a full file system is no
    // reason to leave containers without a manager.
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(e) = written {
        tracing::warn!("writing the process number to {shown}: {e}");
    }
    Ok(file)
}

/// Whether a process was killed, but a thread or child of it is not through with that. A thread that
/// waits for a file of `sysbox-fs` ends only when it gets its answer.
fn is_dying(pid: &str) -> bool {
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// Some descriptors are held for each container; the usual soft limit of 1024 would be soon reached.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!("raising the limit of open files: {e}");
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!("telling the service manager: {e}");
    }
}
