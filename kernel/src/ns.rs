//! Namespaces: user namespaces with mappings, moving into others, time offsets.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::process::{
    PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};

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
/// The namespace needs a process to be born in: a child that does nothing but wait, and is gone
/// when this returns. Safe to call in a process with threads.
///
/// # Errors
/// `EPERM` or `EINVAL` from the map files for mappings that the kernel refuses; `ENOSPC` when
/// `user.max_user_namespaces` is used up.
pub fn user_namespace(uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<OwnedFd> {
    match clone_process(CloneFlags::NEWUSER)? {
        Fork::Child => {
            // Nothing but system calls here: other threads of the parent may have held locks.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            crate::process::pause_for_ever()
        }
        Fork::Parent { pid, pidfd } => {
            let result = write_maps(pid, uid_map, gid_map);
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = crate::process::wait_pidfd(&pidfd);
            result
        }
    }
}

fn write_maps(pid: i32, uid_map: &[IdMap], gid_map: &[IdMap]) -> io::Result<OwnedFd> {
    let proc = format!("/proc/{pid}");
    // The whole map must arrive in one write(2).
    for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let lines: String = map
            .iter()
            .map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count))
            .collect();
        File::options()
            .write(true)
            .open(format!("{proc}/{file}"))?
            .write_all(lines.as_bytes())?;
    }
    Ok(File::open(format!("{proc}/ns/user"))?.into())
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
        let map = [IdMap {
            inside: 0,
            outside: 700_000,
            count: 65_536,
        }];
        let userns = user_namespace(&map, &map).unwrap();
        let tree = crate::mount::clone_tree(rustix::fs::CWD, "/tmp".as_ref(), false).unwrap();
        crate::mount::idmap(&tree, &userns, false).unwrap();
        assert_eq!(rustix::fs::fstat(&tree).unwrap().st_uid, 700_000);
    }
}
