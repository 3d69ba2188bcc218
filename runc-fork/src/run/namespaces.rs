//! Giving birth to init: joined namespaces, the user namespace, a time namespace, and then one
//! clone(2) for the rest.
//!
//! A process cannot leave a user namespace again, and a time namespace holds only processes born
//! after its offsets were written; so a short-lived process goes in first, makes init as its
//! *sibling* (init is the runtime's own child), makes what has to be owned by the user namespace, and
//! ends. That process is born in the container's cgroup, and so is init.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::mount::MountAttrFlags;
use rustix::time::{ClockId, clock_gettime};
use sysbox_cgroups::Entrance;
use sysbox_kernel::mount::new_mount;
use sysbox_kernel::ns::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, pidfd, unshare,
};
use sysbox_kernel::process::{
    CloneFlags, Fork, clone_process, clone_process_into, exit_now, wait_pidfd,
};

use super::channel::Channel;
use crate::plan::{MountPlan, Namespaces, Plan, Source, TimeOffsets};

/// `CLONE_NEWTIME`, which rustix names only among the flags for setns.
const NEW_TIME: UnshareFlags = UnshareFlags::from_bits_retain(0x80);

/// The new init, waiting for its first message.
#[derive(Debug)]
pub struct Launched {
    /// Process id on the host.
    pub pid: i32,
    /// The process.
    pub pidfd: OwnedFd,
    /// Line to it.
    pub channel: Channel,
    first: First,
}

/// The first process, which makes a devpts for each that the plan mounts. That takes a copy of the
/// mount namespace, so nobody waits for it before the mount's turn has come.
#[derive(Debug)]
pub struct First {
    pidfd: OwnedFd,
    channel: Channel,
}

impl First {
    /// The next devpts, in the order of the plan.
    pub fn devpts(&self) -> Result<OwnedFd> {
        self.channel.receive_fd(DEVPTS)
    }
}

impl Launched {
    /// Waits until the first process has done its part and is gone.
    pub fn first_is_done(&self) -> Result<()> {
        wait_pidfd(&self.first.pidfd).map(drop).context("wait for the first process")
    }

    /// The first process.
    pub fn first(&self) -> &First {
        &self.first
    }
}

const DEVPTS: &str = "devpts";

/// Makes init, which runs `init` with its end of the channel.
pub fn launch(
    plan: &Plan,
    userns: BorrowedFd<'_>,
    entrance: &Entrance,
    init: impl FnOnce(Channel),
) -> Result<Launched> {
    let namespaces = &plan.namespaces;
    let joined = open_joined(namespaces)?;
    let (ours, theirs) = Channel::pair()?;
    let (to_first, of_first) = Channel::pair()?;
    let Fork::Parent { pidfd: first, .. } =
        clone_process_into(CloneFlags::NONE, entrance.unified())
            .context("make the first process in the container's cgroup")?
    else {
        drop((ours, to_first));
        let joined_cgroup = entrance.join_v1().context("enter the container's cgroup");
        match joined_cgroup.and_then(|()| enter(namespaces, &joined, userns)) {
            Ok(Fork::Child) => {
                drop(of_first);
                init(theirs);
            }
            Ok(Fork::Parent { pid, .. }) => {
                let born = of_first.send("born", &pid.to_string());
                drop(theirs);
                if let Err(e) = born.and_then(|()| send_devpts(&plan.mounts, &of_first)) {
                    of_first.send_error(&e);
                }
            }
            Err(e) => of_first.send_error(&e),
        }
        exit_now(0)
    };
    drop((theirs, of_first));
    let pid = to_first.expect("born").context("make the container's namespaces")?;
    let pid = pid.parse().context("pid of init")?;
    let pidfd = pidfd(pid).context("open a pidfd of init")?;
    Ok(Launched { pid, pidfd, channel: ours, first: First { pidfd: first, channel: to_first } })
}

/// Makes each devpts of the plan, and hands them to the runtime, which knows their place among the
/// other mounts. A devpts belongs to the user namespace of who makes it, so that root inside may
/// change its options; and mounting takes a mount namespace that this root owns.
fn send_devpts(mounts: &[MountPlan], runtime: &Channel) -> Result<()> {
    let mut wanted = mounts.iter().filter(|mount| mount.source == Source::Devpts).peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    unshare(UnshareFlags::NEWNS).context("make a mount namespace")?;
    for mount in wanted {
        let mut options = vec![("source", mount.shown_source.as_str())];
        options.extend(mount.data());
        let made = new_mount("devpts", &options, MountAttrFlags::empty())
            .with_context(|| format!("make a devpts with the options {options:?}"))?;
        runtime.send_fd(DEVPTS, made.as_fd())?;
    }
    Ok(())
}

fn open_joined(namespaces: &Namespaces) -> Result<Vec<(LinkNameSpaceType, File)>> {
    namespaces
        .joined
        .iter()
        .map(|joined| {
            let file = File::open(&joined.path)
                .with_context(|| format!("open the namespace {}", joined.path.display()))?;
            Ok((joined.kind, file))
        })
        .collect()
}

fn enter(
    namespaces: &Namespaces,
    joined: &[(LinkNameSpaceType, File)],
    userns: BorrowedFd<'_>,
) -> Result<Fork> {
    // With the host's capabilities, which setns(2) needs for namespaces of the host.
    for (kind, file) in joined {
        move_into_link_name_space(file.as_fd(), Some(*kind))
            .with_context(|| format!("join a namespace ({kind:?})"))?;
    }
    move_into_link_name_space(userns, Some(LinkNameSpaceType::User))
        .context("enter the user namespace")?;
    if let Some(offsets) = namespaces.time {
        new_time_namespace(offsets)?;
    }
    clone_process(namespaces.made.with(CloneFlags::SIBLING))
        .context("make init with its namespaces")
}

/// The offset with which a clock starts at zero now: nanoseconds always count forwards.
fn back_to_zero(clock: ClockId) -> (i64, u32) {
    let now = clock_gettime(clock);
    match u32::try_from(now.tv_nsec) {
        Ok(nanoseconds @ 1..) => (-now.tv_sec - 1, 1_000_000_000 - nanoseconds),
        _ => (-now.tv_sec, 0),
    }
}

/// A time namespace in which the machine booted just now (time_namespaces(7)).
fn new_time_namespace(offsets: TimeOffsets) -> Result<()> {
    match unshare(NEW_TIME) {
        Ok(()) => {}
        // A kernel without CONFIG_TIME_NS: uptime is then only virtualised in /proc.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            return Ok(());
        }
        Err(e) => return Err(e).context("make a time namespace"),
    }
    let mut text = String::new();
    let clocks = [
        ("monotonic", ClockId::Monotonic, offsets.monotonic),
        ("boottime", ClockId::Boottime, offsets.boottime),
    ];
    for (name, clock, given) in clocks {
        let (seconds, nanoseconds) = given.unwrap_or_else(|| back_to_zero(clock));
        text.push_str(&format!("{name} {seconds} {nanoseconds}\n"));
    }
    std::fs::write("/proc/self/timens_offsets", text)
        .context("write the offsets of the time namespace (linux.timeOffsets)")
}
