//! Namespaces: user namespaces with mappings, moving into others, time offsets.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Uid};
use rustix::process::{
    PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::process::{CloneFlags, Fork, clone_process};

pub use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces,
};

/// `unshare(2)` for everything but the descriptor table, which Rust's ownership of descriptors
/// needs to stay shared.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: CLONE_FILES, the one flag that would invalidate owned descriptors, is excluded.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Whether the calling process is in the host's user namespace, the first one of the machine. If not
/// it is in a container itself, where the kernel refuses much even to root: device programs, ID-mapped
/// mounts, nodes that open.
///
/// # Errors
/// /proc is not mounted.
pub fn is_on_the_host() -> io::Result<bool> {
    /// `PROC_USER_INIT_INO` of linux/proc_ns.h, `USER_NS_INIT_INO` of linux/nsfs.h.
    const FIRST: u64 = 0xEFFF_FFFD;
    Ok(rustix::fs::stat("/proc/self/ns/user")?.st_ino == FIRST)
}

/// One line of `/proc/PID/uid_map` or `gid_map`, user_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside the namespace.
    pub inside: u32,
    /// First id in the parent namespace.
    pub outside: u32,
    /// How many ids.
    pub count: u32,
}

/// Makes a user namespace with the given mappings and returns a descriptor that keeps it alive.
///
/// # Errors
/// As [`Birth::begin`] and [`Birth::finish`].
pub fn user_namespace(uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<OwnedFd> {
    Birth::begin(uid_map, gid_map)?.finish(uid_map, gid_map)
}

/// A user namespace that is being made, while the caller does something else.
///
/// The namespace belongs to the host ids of its own root, not to root of the host: what is counted
/// for a user (inotify instances, nested namespaces, user_namespaces(7)) would otherwise be counted
/// for all containers together, with one limit. It needs a process to be born in: a child that is
/// gone when this is dropped. Safe to use in a process with threads.
#[derive(Debug)]
pub struct Birth {
    pid: i32,
    pidfd: OwnedFd,
    ready: OwnedFd,
    /// The process's end, too: it has our descriptors, not copies of them.
    _report: OwnedFd,
}

impl Birth {
    /// Starts the process.
    ///
    /// # Errors
    /// None can be started.
    pub fn begin(uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<Self> {
        let owner = (host_root(uid_map), host_root(gid_map));
        let (ready, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let this = rustix::process::getpid();
        match clone_process(CloneFlags::SHARE_FILES)? {
            Fork::Child => {
                // Nothing but system calls here, for other threads of the parent may have held locks;
                // and no descriptor is closed, for they are the parent's.
                let _ = set_parent_process_death_signal(Some(Signal::KILL));
                let error = be_born(owner).err().and_then(|e| e.raw_os_error()).unwrap_or(0);
                let _ = rustix::io::write(&report, &error.to_ne_bytes());
                crate::process::pause_while_child_of(this)
            }
            Fork::Parent { pid, pidfd } => Ok(Self { pid, pidfd, ready, _report: report }),
        }
    }

    /// The namespace, with its mappings. The process is told to end, and waited for when this is
    /// dropped.
    ///
    /// # Errors
    /// `EPERM` or `EINVAL` from the map files for mappings that the kernel refuses; `ENOSPC` when
    /// `user.max_user_namespaces` is used up.
    pub fn finish(&self, uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<OwnedFd> {
        wait_for_birth(&self.ready)?;
        let made = write_maps(self.pid, uid_map, gid_map)?;
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        Ok(made)
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = crate::process::wait_pidfd(&self.pidfd);
    }
}

/// The host's id of a namespace's root; the host's own where root is not mapped.
fn host_root(map: &[IdMap]) -> u32 {
    map.iter().find(|m| m.inside == 0).map_or(0, |m| m.outside)
}

/// Takes on the owner's ids and makes the namespace. The ids are this thread's only, as the
/// kernel has it, and the process has no other thread.
fn be_born((uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // The change of ids has cleared it.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    unshare(UnshareFlags::NEWUSER)
}

/// Waits, not for ever, until the child says how it went.
fn wait_for_birth(ready: &OwnedFd) -> io::Result<()> {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(ready, PollFlags::IN)];
    if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut error = [0; 4];
    rustix::io::retry_on_intr(|| rustix::io::read(ready, &mut error))?;
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn write_maps(pid: i32, uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<OwnedFd> {
    let proc = format!("/proc/{pid}");
    // The whole map must arrive in one write(2).
    for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let lines: String =
            map.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count)).collect();
        File::options().write(true).open(format!("{proc}/{file}"))?.write_all(lines.as_bytes())?;
    }
    Ok(File::open(format!("{proc}/ns/user"))?.into())
}

/// The mappings of a user namespace, of users and of groups, as this process sees ids.
///
/// A namespace shows them only through a process in it: a child enters for a moment. Safe to call in
/// a process with threads.
///
/// # Errors
/// `EPERM` without rights over the namespace, `EINVAL` for the caller's own.
pub fn mappings_of(userns: impl AsFd) -> io::Result<(Vec<IdMap>, Vec<IdMap>)> {
    let (ready, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let this = rustix::process::getpid();
    match clone_process(CloneFlags::SHARE_FILES)? {
        Fork::Child => {
            // As above: system calls only, and no descriptor is closed.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let entered = move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User));
            let error = entered.err().map_or(0, rustix::io::Errno::raw_os_error);
            let _ = rustix::io::write(&report, &error.to_ne_bytes());
            crate::process::pause_while_child_of(this)
        }
        Fork::Parent { pid, pidfd } => {
            let result = wait_for_birth(&ready).and_then(|()| {
                let map = |file| read_map(&std::fs::read_to_string(format!("/proc/{pid}/{file}"))?);
                Ok((map("uid_map")?, map("gid_map")?))
            });
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = crate::process::wait_pidfd(&pidfd);
            result
        }
    }
}

fn read_map(text: &str) -> io::Result<Vec<IdMap>> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().map_while(|field| field.parse().ok());
        Some(IdMap { inside: fields.next()?, outside: fields.next()?, count: fields.next()? })
    };
    text.lines().map(|l| line(l).ok_or_else(|| io::ErrorKind::InvalidData.into())).collect()
}

/// A pidfd for a process id.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_outlives_the_process_that_made_it() {
        let map = [IdMap { inside: 0, outside: 700_000, count: 65_536 }];
        let userns = user_namespace(&map, &map).unwrap();
        let tree = crate::mount::clone_tree(rustix::fs::CWD, "/tmp".as_ref(), false).unwrap();
        crate::mount::idmap(&tree, &userns, false).unwrap();
        assert_eq!(rustix::fs::fstat(&tree).unwrap().st_uid, 700_000);
        assert_eq!(crate::notify::owner_uid(&userns).unwrap(), 700_000);
    }

    #[test]
    fn the_mappings_of_a_namespace_are_those_it_was_made_with() {
        let uids = [
            IdMap { inside: 0, outside: 700_000, count: 1000 },
            IdMap { inside: 1000, outside: 900_000, count: 5 },
        ];
        let gids = [IdMap { inside: 0, outside: 800_000, count: 65_536 }];
        let userns = user_namespace(&uids, &gids).unwrap();
        assert_eq!(mappings_of(&userns).unwrap(), (uids.to_vec(), gids.to_vec()));
        let own = File::open("/proc/self/ns/user").unwrap();
        assert!(mappings_of(own).is_err());
    }
}
