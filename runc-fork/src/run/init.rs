//! What init does between its birth and the program of the container. One flat list; each step
//! names itself in its error, which the runtime prints.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Uid, chownat,
    fstatfs, openat, openat2, statat,
};
use rustix::mount::{MountAttrFlags, UnmountFlags, mount_bind_recursive, unmount};
use rustix::process::{chdir, pivot_root, setsid};
use sysbox_kernel::mount::{attach, clone_tree, new_mount};
use sysbox_kernel::ns::{UnshareFlags, unshare};
use sysbox_kernel::process::{
    close_all_but, exit_now, keep_over_exec, new_session_keyring, reset_signals,
};
use sysbox_seccomp::Program;

use super::channel::Channel;
use super::console::Console;
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
}

impl Init<'_> {
    /// Runs until the program replaces it; ends the process otherwise.
    pub fn run(self, channel: Channel) -> ! {
        if let Err(error) = self.steps(&channel) {
            channel.send_error(&error);
        }
        exit_now(1)
    }

    fn steps(&self, channel: &Channel) -> Result<()> {
        // The runtime's other descriptors (its connection to the manager!) must not live on here.
        close_all_but(self.preserved_fds, &[channel.as_fd(), self.start])?;
        channel.expect("go")?;
        reset_signals();
        become_root_inside()?;
        // This copy is what locks the host side's mounts: see `tree`.
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP)
            .context("make the mount and cgroup namespaces")?;
        enter_root().context("make the tree the root file system")?;
        match new_session_keyring() {
            // A kernel without keys, or an outer seccomp filter.
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(1 | 38)) => {}
            Err(e) => return Err(e).context("make a session keyring"),
        }
        setsid().context("make a session")?;
        for mount in self.plan.mounts.iter().filter(|m| m.made_by_init()) {
            mount_own(mount).with_context(|| format!("mount {}", mount.destination.display()))?;
        }
        if self.plan.terminal {
            self.console(channel)?;
        }
        self.names()?;
        self.sysctls()?;
        make_working_directory(&self.plan.process.cwd)?;
        let prepared = prepare(&self.plan.process, self.program, channel)?;
        for fd in 3..3 + self.preserved_fds {
            keep_over_exec(i32::try_from(fd)?).context("keep a preserved descriptor")?;
        }
        channel.send("ready", "")?;
        // From here on the runtime may be gone; `start` is the next to speak.
        wait_for_start(self.start)?;
        let error = prepared.exec();
        // Nobody waits on the channel any more: the engine reads the container's stderr.
        eprintln!("{error:#}");
        exit_now(if format!("{error:#}").contains("No such file") { 127 } else { 126 })
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

/// Makes the tree the root and lets go of everything else. The tree is bound onto itself first:
/// the top of a locked tree could not become a root, the copy's top can, and what is below it
/// stays locked.
fn enter_root() -> Result<()> {
    let root = tree::root_path();
    mount_bind_recursive(&root, &root).context("bind the tree onto itself")?;
    chdir(&root).context("enter the tree")?;
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context("detach the old root")?;
    chdir("/").context("enter the new root")
}

/// The mounts that belong to a namespace which only init is in.
fn mount_own(mount: &MountPlan) -> Result<()> {
    let (fs_type, fixed): (_, &[(&str, &str)]) = match mount.source {
        Source::Cgroup => ("cgroup2", &[]),
        Source::Devpts => ("devpts", &[]),
        Source::Mqueue => ("mqueue", &[]),
        _ => return Ok(()),
    };
    let mut options = fixed.to_vec();
    if fs_type == "devpts" {
        options.extend(mount.options.data.iter().map(|w| w.split_once('=').unwrap_or((w, ""))));
    }
    let made = new_mount(fs_type, &options, MountAttrFlags::empty())
        .with_context(|| format!("make a {fs_type} with the options {options:?}"))?;
    tree::apply_attributes(&made, mount)?;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let target = tree::make(root.as_fd(), &mount.destination, tree::Kind::Directory)?;
    attach(&made, target).context("attach it")
}

/// Makes the working directory if the image has none, for the container's root, as runc does.
fn make_working_directory(cwd: &Path) -> Result<()> {
    if cwd == Path::new("/") {
        return Ok(());
    }
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    tree::make(root.as_fd(), cwd, tree::Kind::Directory)
        .map(drop)
        .with_context(|| format!("make the working directory {cwd:?}"))
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
