//! The FUSE session: one file system for all containers, mounted once, served by whichever daemon
//! lives.
//!
//! A session is *new* (mounted and greeted by the kernel), *served*, *orphaned* (the daemon died;
//! requests wait because the device is [kept](hold)), *adopted* (the next daemon takes the device
//! over and gets the requests that the dead one had taken: from the kernel, or from the [relay]'s
//! journal), and *gone* (unmounted).

mod arena;
mod desk;
mod files;
pub mod hold;
pub mod inode;
mod line;
mod mount;
mod relay;
mod texts;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use fuser::{Config, InitFlags, Notifier, SessionACL};
use sysbox_daemon::metrics::{Counter, Histogram};
use sysbox_kernel::fuse::{self, journal::Journal};

use crate::containers::Containers;
use crate::triggers::Triggers;
use crate::view::host::{Host, boottime};
use desk::Desk;
use files::Files;
use inode::{Node, ROOT, Tree};
use line::Lines;
use relay::Relay;
use texts::Texts;

/// Files that were opened: from the request to the answer, waiting in line included.
pub static READS: Histogram = Histogram::new();
/// Requests that failed for a reason of the daemon's own.
pub static ERRORS: Counter = Counter::new();

/// Threads that answer requests.
const THREADS: usize = 2;

/// A session that waits to be served.
#[derive(Debug)]
pub struct Prepared {
    session: fuser::Session<Files>,
    relay: Option<Relay>,
    lines: Lines,
    tree: Arc<Tree>,
    texts: Arc<Texts>,
    triggers: Triggers,
}

/// A session that is being served.
#[derive(Debug)]
pub struct Session {
    notifier: Notifier,
    tree: Arc<Tree>,
    texts: Arc<Texts>,
}

/// Mounts the file system, or takes over the one that is mounted and kept.
///
/// # Errors
/// No FUSE in the kernel, no right to mount, a mount point that can't be made.
pub fn prepare(
    host: Arc<Host>,
    containers: Arc<Containers>,
    run_dir: &Path,
) -> anyhow::Result<Prepared> {
    let mountpoint = run_dir.join("fs");
    let tree = Arc::new(Tree::new(&host));
    let agreed = Arc::new(OnceLock::new());
    let triggers = Triggers::start().context("starting a thread")?;
    let mut found = hold::find(run_dir).filter(|_| mount::is_mounted(&mountpoint));
    // The clock since boot goes by far faster than files are opened, so handles are new.
    let kept = found.as_mut().and_then(|held| held.texts.take());
    let (texts, memory) = Texts::new(boottime(), kept);
    // What the dead daemon forgot on disk only.
    texts.retain(|key| containers.get(key).is_some());
    let texts = Arc::new(texts);
    let desk = Desk::new(host, containers, tree.clone(), texts.clone(), triggers.clone());
    let lines = Lines::default();
    let files = Files::new(desk, texts.clone(), lines.clone(), agreed.clone());
    let mut memories: Vec<_> = memory.iter().map(|memory| (hold::TEXTS, memory.as_fd())).collect();
    let (session, relay) = match found {
        Some(held) => {
            let adopted =
                adopt(files, held, &memories).context("taking over the FUSE file system")?;
            mount::keep_apart(&mountpoint)?;
            tracing::info!("took over the file system at {}", mountpoint.display());
            adopted
        }
        None => {
            hold::release(run_dir);
            let (session, device) = create(files, &mountpoint)?;
            let flags = agreed.get().copied().unwrap_or(0);
            let device_kept = device.try_clone().context("duplicating the FUSE device")?;
            let relay = if sends_again(flags) { None } else { Some(intervene(&session, device)?) };
            let journal =
                relay.as_ref().map(|relay| (hold::JOURNAL, relay.journal.memory().as_fd()));
            memories.extend(journal);
            if let Err(e) = hold::keep(run_dir, device_kept.as_fd(), flags, &memories) {
                tracing::warn!("the files of containers will not outlive this daemon: {e}");
            }
            (session, relay)
        }
    };
    Ok(Prepared { session, relay, lines, tree, texts, triggers })
}

impl Prepared {
    /// Begins to serve. `ended` is called if the file system goes away.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(
        self,
        ended: impl FnOnce(std::io::Result<()>) + Send + 'static,
    ) -> std::io::Result<Session> {
        let Self { session, relay, lines, tree, texts, triggers } = self;
        let notifier = session.notifier();
        lines.staff()?;
        triggers.watch()?;
        relay.map_or(Ok(()), Relay::start)?;
        std::thread::Builder::new().name("fuse".into()).spawn(move || ended(session.run()))?;
        Ok(Session { notifier, tree, texts })
    }
}

impl Session {
    /// The emulated files that this host has, relative to a container's directory.
    pub fn files(&self) -> Vec<&'static str> {
        self.tree.files()
    }

    /// Forgets what was opened of a container that is no longer served, and has the kernel forget its
    /// directory.
    pub fn forget(&self, key: u32) {
        self.texts.retain(|other| other != key);
        let name = key.to_string();
        if let Err(e) = self.notifier.inval_entry(fuser::INodeNo(ROOT), name.as_ref()) {
            tracing::debug!("forgetting the directory of container {key}: {e}");
        }
        // Mounts of its files may linger; their attributes need not.
        if let Node::Directory { directory, .. } = self.tree.container(key) {
            for (_, node) in self.tree.children(key, directory) {
                let _ = self.notifier.inval_inode(fuser::INodeNo(node.ino()), -1, 0);
            }
        }
    }
}

/// Unmounts the file system and lets go of its device. Only without containers.
pub fn end(run_dir: &Path) {
    mount::unmount_all(&run_dir.join("fs"));
    hold::release(run_dir);
}

/// Makes a new file system, attached at `mountpoint`, greeted by the kernel.
fn create(files: Files, mountpoint: &Path) -> anyhow::Result<(fuser::Session<Files>, OwnedFd)> {
    let device = fuse::open_device().context(
        "opening /dev/fuse: is FUSE in the kernel (`modprobe fuse`), and is this run by root?",
    )?;
    let mount = mount::new(device.as_fd())?;
    let kept = device.try_clone().context("duplicating the FUSE device")?;
    let session = fuser::Session::from_fd(files, device, SessionACL::All, config())
        .context("greeting the kernel's FUSE")?;
    mount::replace(mount.as_fd(), mountpoint)?;
    tracing::info!("mounted the file system at {}", mountpoint.display());
    Ok((session, kept))
}

/// Takes over a file system whose kernel side has long been greeted. `memories` are kept with it.
///
/// The library insists on a greeting, so it gets one from here, over a socket that offers exactly
/// what was agreed on then. After that the socket's descriptor is made to be the device, or goes on as
/// the library's side of the relay.
fn adopt(
    files: Files,
    mut held: hold::Held,
    memories: &[(&str, BorrowedFd<'_>)],
) -> anyhow::Result<(fuser::Session<Files>, Option<Relay>)> {
    let (library, kernel) = relay::pair()?;
    rustix::io::write(&kernel, &fuse::init_request(held.flags))?;
    let session = fuser::Session::from_fd(files, library, SessionACL::All, config())?;
    if sends_again(held.flags) {
        fuse::replace(session.as_fd(), held.device.as_fd())?;
        if let Err(e) = fuse::resend(held.device.as_fd()) {
            tracing::warn!("reads that were under way when the last daemon ended will hang: {e}");
        }
        keep_on(&held, memories);
        return Ok((session, None));
    }
    // The library's answer to the greeting.
    rustix::io::read(&kernel, &mut [0_u8; 256])?;
    let kept = held.journal.take().map(Journal::open);
    let known = kept.is_some();
    let (journal, left) = kept.unwrap_or_else(|| Ok((Journal::new()?, Vec::new())))?;
    let mut memories = memories.to_vec();
    memories.extend((!known).then(|| (hold::JOURNAL, journal.memory().as_fd())));
    keep_on(&held, &memories);
    tracing::info!("{} requests wait for an answer", left.len());
    Ok((session, Some(Relay { device: held.device, library: kernel, journal, left })))
}

fn keep_on(held: &hold::Held, memories: &[(&str, BorrowedFd<'_>)]) {
    if let Err(e) = hold::keep_on(held, memories) {
        tracing::warn!("the files of containers may not outlive this daemon: {e}");
    }
}

/// Puts a relay between the library and its device.
fn intervene(session: &fuser::Session<Files>, device: OwnedFd) -> anyhow::Result<Relay> {
    let (library, ours) = relay::pair()?;
    fuse::replace(session.as_fd(), library.as_fd())?;
    let journal = Journal::new().context("making the journal of requests")?;
    Ok(Relay { device, library: ours, journal, left: Vec::new() })
}

/// Whether the kernel sends requests again that a dead server had taken.
fn sends_again(flags: u64) -> bool {
    InitFlags::from_bits_retain(flags).contains(InitFlags::FUSE_HAS_RESEND)
}

fn config() -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    // Requests taken through a cloned device are lost with the process, not sent again.
    config.clone_fd = false;
    config
}
