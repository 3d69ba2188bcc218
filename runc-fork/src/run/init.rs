//! What init does between its birth and the program of the container. One flat list; each step
//! names itself in its error, which the runtime prints.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime as oci;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Uid, chownat,
    fstatfs, openat, openat2, statat,
};
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root, setsid};
use sysbox_kernel::mount::{Attributes, attach, clone_tree, new_mount, set_attributes};
use sysbox_kernel::ns::{UnshareFlags, unshare};
use sysbox_kernel::process::{
    close_all_but, end_at_signals, exit_now, keep_over_exec, new_session_keyring, reset_signals,
};
use sysbox_seccomp::Program;

use super::channel::Channel;
use super::console::Console;
use super::hooks::{self, By};
use super::process::{become_root_inside, prepare};
use super::tree;
use crate::plan::{MountPlan, Plan, Source};

/// What init is given.
pub struct Init<'a> {
    /// What to become.
    pub plan: &'a Plan,
    /// Seccomp filter.
    pub program: Option<&'a Program>,
    /// A byte can be read here when `start` is called.
    pub start: BorrowedFd<'a>,
    /// Descriptors 3 to 3 + n - 1 stay open over exec (`--preserve-fds`).
    pub preserved_fds: u32,
    /// A session keyring of its own is made.
    pub new_keyring: bool,
    /// `hooks` of the spec; those are run here that belong into the container's namespaces.
    pub hooks: Option<&'a oci::Hooks>,
    /// The container's state for them, without init's pid.
    pub state: oci::State,
}

impl Init<'_> {
    /// Runs until the program replaces it; ends the process otherwise.
    pub fn run(mut self, channel: Channel) -> ! {
        if let Err(error) = self.steps(&channel) {
            channel.send_error(&error);
        }
        exit_now(1)
    }

    fn steps(&mut self, channel: &Channel) -> Result<()> {
        // The runtime's other descriptors (its connection to the manager!) must not live on here.
        close_all_but(self.preserved_fds, &[channel.as_fd(), self.start])?;
        let pid = channel.expect("go")?;
        self.state.set_pid(pid.parse().ok());
        reset_signals();
        let root = channel.receive_fd("tree")?;
        // By descriptor, since the directories above the tree need not let this process through.
        // Copying the namespace moves it along.
        fchdir(&root).context("enter the tree")?;
        drop(root);
        become_root_inside()?;
        // This copy is what locks the host side's mounts: see `tree`.
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP)
            .context("make the mount and cgroup namespaces")?;
        let create_container = self.hooks.and_then(|h| h.create_container().as_ref());
        hooks::run("createContainer", create_container, &self.state, By::Init)?;
        enter_root().context("make the tree the root file system")?;
        if self.new_keyring {
            own_keyring()?;
        }
        setsid().context("make a session")?;
        for mount in self.plan.mounts.iter().filter(|m| m.source == Source::Cgroup) {
            mount_cgroup(mount)
                .with_context(|| format!("mount {}", mount.destination.display()))?;
        }
        self.propagation()?;
        if self.plan.terminal {
            self.console(channel)?;
        }
        self.names()?;
        self.sysctls()?;
        // `kill` of a container that is not started yet; before the filter, which may be a strict one.
        end_at_signals();
        let prepared = prepare(&self.plan.process, self.program, channel)?;
        for fd in 3..3 + self.preserved_fds {
            keep_over_exec(i32::try_from(fd)?).context("keep a preserved descriptor")?;
        }
        channel.send("ready", "")?;
        // From here on the runtime may be gone; `start` is the next to speak.
        wait_for_start(self.start)?;
        let error = match self.start_container(prepared.env()) {
            Ok(()) => prepared.exec(),
            Err(e) => e,
        };
        // Nobody waits on the channel any more: the engine reads the container's stderr.
        let message = crate::log::chain(&error);
        eprintln!("{message}");
        exit_now(if message.contains("no such file") { 127 } else { 126 })
    }

    fn start_container(&mut self, env: &[CString]) -> Result<()> {
        self.state.set_status(oci::ContainerState::Created);
        let start_container = self.hooks.and_then(|h| h.start_container().as_ref());
        hooks::run_start_container(start_container, &self.state, env)
    }

    /// Propagation that could not be set before: the copy of the mount namespace makes every shared
    /// mount a slave of the host's, so it is shared anew, among the container's own namespaces; and
    /// an unbindable mount would not have come along when the tree was bound onto itself.
    fn propagation(&self) -> Result<()> {
        let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let set = |fd: BorrowedFd<'_>, kind, recursive| {
            let propagation = Attributes { propagation: Some(kind), ..Attributes::default() };
            set_attributes(fd, propagation, recursive)
        };
        for mount in &self.plan.mounts {
            let Some((kind, recursive)) = mount.late_propagation else { continue };
            let what = || format!("set the propagation of {}", mount.destination.display());
            let target = tree::find(root.as_fd(), &mount.destination)?.with_context(what)?;
            set(target.as_fd(), kind, recursive).with_context(what)?;
        }
        if let Some((kind, recursive)) = self.plan.root_propagation {
            set(root.as_fd(), kind, recursive)
                .context("set the propagation of the root (linux.rootfsPropagation)")?;
        }
        Ok(())
    }

    fn console(&self, channel: &Channel) -> Result<()> {
        let console = Console::open(&self.plan.process)?;
        let slave = clone_tree(console.slave.as_fd(), Path::new(""), false)
            .context("clone the terminal")?;
        let target = openat(
            CWD,
            "/dev/console",
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("open /dev/console")?;
        attach(&slave, target).context("mount the terminal on /dev/console")?;
        console.adopt()?;
        channel.send_fd("console", console.master.as_fd())?;
        channel.expect("taken")?;
        Ok(())
    }

    fn names(&self) -> Result<()> {
        // A uts namespace that was joined has its names, which may be none of ours to change.
        if !self.plan.namespaces.own_names() {
            return Ok(());
        }
        if let Some(hostname) = &self.plan.hostname {
            rustix::system::sethostname(hostname.as_bytes())
                .with_context(|| format!("set the hostname {hostname:?}"))?;
        }
        if let Some(domainname) = &self.plan.domainname {
            rustix::system::setdomainname(domainname.as_bytes())
                .with_context(|| format!("set the domainname {domainname:?}"))?;
        }
        Ok(())
    }

    /// Writes `linux.sysctl`, to the procfs that is mounted on /proc and nowhere else: no link
    /// and no mount below it may redirect a write (CVE-2019-19921 and its successors).
    fn sysctls(&self) -> Result<()> {
        if self.plan.sysctl.is_empty() {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat2(CWD, "/proc", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .context("open /proc")?;
        ensure!(fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC, "/proc in the container is no procfs");
        for (name, value) in &self.plan.sysctl {
            let path = format!("sys/{}", name.replace('.', "/"));
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let file = openat2(&proc, path.as_str(), flags, Mode::empty(), resolve)
                .with_context(|| format!("open /proc/{path} (linux.sysctl {name})"))?;
            rustix::io::write(&file, value.as_bytes())
                .with_context(|| format!("write {value:?} to /proc/{path} (linux.sysctl)"))?;
        }
        Ok(())
    }
}

fn own_keyring() -> Result<()> {
    match new_session_keyring() {
        // A kernel without keys, or an outer seccomp filter.
        Err(e) if matches!(e.raw_os_error(), Some(1 | 38)) => Ok(()),
        other => other.context("make a session keyring"),
    }
}

/// Makes the tree the root and lets go of everything else. The tree is bound onto itself first:
/// the top of a locked tree could not become a root, the copy's top can, and what is below it
/// stays locked.
fn enter_root() -> Result<()> {
    let here = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context("open the tree")?;
    let copy = clone_tree(&here, Path::new(""), true).context("clone the tree")?;
    attach(&copy, &here).context("bind the tree onto itself")?;
    fchdir(&copy).context("enter the tree")?;
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context("detach the old root")?;
    chdir("/").context("enter the new root")
}

/// The one mount that belongs to a namespace which only init is in.
fn mount_cgroup(mount: &MountPlan) -> Result<()> {
    let source = [("source", mount.shown_source.as_str())];
    let made = new_mount("cgroup2", &source, MountAttrFlags::empty()).context("make a cgroup2")?;
    tree::apply_attributes(&made, mount)?;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let target = tree::make(root.as_fd(), &mount.destination, tree::Kind::Directory)?;
    attach(&made, target).context("attach it")
}

fn wait_for_start(start: BorrowedFd<'_>) -> Result<()> {
    let mut byte = [0];
    rustix::io::retry_on_intr(|| rustix::io::read(start, &mut byte))
        .map(drop)
        .context("wait for start")
}

/// Gives inherited pipes and sockets to the container's user, so that it can open
/// /proc/self/fd/1 and the like. Terminals and devices are left alone.
pub fn own_standard_streams(uid: Option<u32>, gid: Option<u32>) {
    for path in ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"] {
        let Ok(stat) = statat(CWD, path, AtFlags::empty()) else { continue };
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket) {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            // A stream that cannot be given away still works as a stream.
            let _ = chownat(CWD, path, uid, gid, AtFlags::empty());
        }
    }
}

/// Opens the FIFO of `start` for init: both ways, so that it never sees an end of file.
pub fn open_start_fifo(path: &Path) -> Result<OwnedFd> {
    Ok(File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?
        .into())
}
