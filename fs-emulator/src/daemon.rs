//! The daemon from start to end.

use std::path::Path;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use sysbox_daemon::instance::Instance;

use crate::containers::Containers;
use crate::sandbox;
use crate::serve::Service;
use crate::session;
use crate::state::Store;
use crate::view::cgroup::Hierarchy;
use crate::view::host::Host;
use crate::view::{kept, load};

/// Samples of the load after which they are kept on disk: every minute.
const SAVE_EVERY: u64 = 12;

/// Runs the daemon until it is told to end (SIGTERM, SIGINT).
///
/// # Errors
/// What keeps it from starting, in words for the administrator.
pub fn run(run_dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(run_dir)
        .with_context(|| format!("making the run directory {}", run_dir.display()))?;
    let run_dir = &run_dir
        .canonicalize()
        .with_context(|| format!("resolving the run directory {}", run_dir.display()))?;
    let _instance = Instance::lock(&run_dir.join("sysfs.pid"), "sysbox-fs", "--run-dir")?;
    sysbox_daemon::usage::count_start(&run_dir.join("sysfs.starts"));
    let files = sysbox_daemon::usage::raise_descriptor_limit();
    kept::may_have_open(usize::try_from(files).unwrap_or(usize::MAX));
    // Before any thread starts: they inherit the mask, and only `wait` below takes signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("blocking signals")?;

    let host = Arc::new(Host::new(Path::new("/")));
    let state = run_dir.join("fs-state");
    let containers = Store::open(&state)
        .and_then(|store| Containers::load(host.clone(), store))
        .with_context(|| format!("reading the containers from {}", state.display()))?;
    let containers = Arc::new(containers);
    let ending = Arc::new(AtomicBool::new(false));
    let expected = ending.clone();
    let prepared = session::prepare(host.clone(), containers.clone(), run_dir)?;
    let socket = run_dir.join("sysfs.sock");
    let listener = sysbox_ipc::Listener::bind(&socket)
        .with_context(|| format!("listening on {}", socket.display()))?;
    let served = containers.clone();
    let dir = run_dir.clone();
    // All threads that others talk to are started by one that has given up its rights.
    let confined = std::thread::Builder::new().name("confined".into()).spawn(move || {
        sandbox::enter(&dir).context("giving up rights")?;
        let session = prepared.serve(move |result| {
            if !expected.load(Ordering::SeqCst) {
                // Nothing is left to serve; a service manager starts a new daemon with a new mount.
                tracing::error!(
                    "the file system was unmounted or aborted from outside: {result:?}"
                );
                exit(1);
            }
        })?;
        sample_loads(host.clone(), served.clone())?;
        let mountpoint = dir.join("fs");
        let service = Arc::new(Service { host, containers: served, session, mountpoint });
        std::thread::Builder::new().name("accept".into()).spawn(move || service.run(&listener))?;
        anyhow::Ok(())
    })?;
    confined.join().map_err(|_| anyhow::anyhow!("starting the service failed"))??;
    if let Err(e) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("telling the service manager: {e}");
    }
    tracing::info!("ready, {} containers", containers.all().len());

    let signal = signals.wait().context("waiting for signals")?;
    tracing::info!("ending because of {signal}");
    ending.store(true, Ordering::SeqCst);
    save_progress(&containers);
    if containers.all().is_empty() {
        session::end(run_dir);
        let _ = std::fs::remove_file(&socket);
    }
    // With containers the mount stays, and the kernel keeps their requests for the next daemon.
    // The threads that wait for requests can't be told to end, and need not be.
    exit(0)
}

/// Starts the thread that samples the load of every container, keeps it on disk, and lets go of what
/// was kept open for readers.
fn sample_loads(host: Arc<Host>, containers: Arc<Containers>) -> anyhow::Result<()> {
    std::thread::Builder::new().name("load".into()).spawn(move || {
        for round in 0_u64.. {
            let all = containers.all();
            for container in &all {
                load::sample(&host, container);
                container.hierarchies.iter().for_each(Hierarchy::rest);
            }
            if round % SAVE_EVERY == SAVE_EVERY - 1 && !all.is_empty() {
                save_progress(&containers);
            }
            std::thread::sleep(Duration::from_nanos(load::PERIOD));
        }
    })?;
    Ok(())
}

fn save_progress(containers: &Containers) {
    if let Err(e) = containers.save_progress() {
        tracing::warn!("saving load averages and CPU times: {e}");
    }
}
