//! Directories of the container's overlay that cannot be forgotten, because something is in them.
//!
//! An overlay decides where a directory lives when it is looked up. One that only the image has, and
//! that is a working directory, holds a mount point (Docker mounts three files below /etc) or a file
//! that a process has open or runs ([`held`](super::held)), stays in use, as do the directories above
//! it, and keeps that decision: what the engine then copies into any of them, in the shared upper
//! directory, would never show inside. So before the engine looks, such directories are brought into
//! the upper one *by the container's overlay* (a copy-up, as any change inside would do; it takes the
//! directories above along), and both sides agree from then on. `docker diff` does not list them: mode,
//! size and time stay the same.
//!
//! All that is touched here belongs to the container. Nothing is asked of a file system that it may
//! serve itself: paths stay on the overlay (`RESOLVE_NO_XDEV`), and attributes are taken from the
//! kernel's memory (`AT_STATX_DONT_SYNC`).

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, chmodat, openat,
    openat2, statx,
};

use super::held::held_directories;
use crate::sync::lock;

/// Most processes and cgroups that are looked at: who has more of them than this and changes into a
/// directory of the image sees a file that `docker cp` brought there later.
const MOST: usize = 4096;
/// Deepest cgroup that is looked at.
const DEEPEST: usize = 16;

/// The container's side of a view.
#[derive(Debug)]
pub struct Container {
    /// The root of its overlay.
    pub root: OwnedFd,
    /// Its init, on the host.
    pub init_pid: i32,
    /// Its directory in the unified cgroup hierarchy, for its other processes.
    pub cgroup: PathBuf,
    /// Inode numbers of directories that are in the upper directory since an earlier look: they stay
    /// there as long as this overlay is mounted.
    settled: Mutex<HashSet<u64>>,
}

impl Container {
    /// The container whose init is this process.
    pub fn new(root: OwnedFd, init_pid: i32, cgroup: PathBuf) -> Self {
        Self { root, init_pid, cgroup, settled: Mutex::default() }
    }

    /// Brings every directory that is in use into the upper directory.
    pub fn settle_directories(&self) {
        let Ok(root) = attributes(&self.root) else {
            return;
        };
        let settle = |directory: OwnedFd| {
            let Ok(stat) = attributes(&directory) else {
                return;
            };
            let same = (stat.stx_dev_major, stat.stx_dev_minor)
                == (root.stx_dev_major, root.stx_dev_minor);
            let known = lock(&self.settled).contains(&stat.stx_ino);
            // One that could not be copied (a full disk) is tried again at the next look.
            if same && is_directory(&stat) && !known && copy_up(&directory, &stat) {
                lock(&self.settled).insert(stat.stx_ino);
            }
        };
        let processes = self.processes();
        let mut paths = self.parents_of_mounts();
        held_directories(&processes, &mut paths);
        for path in paths {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
            if let Ok(directory) = openat2(&self.root, &path, flags, Mode::empty(), resolve) {
                settle(directory);
            }
        }
        for pid in processes {
            for link in ["cwd", "root"] {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let path = format!("/proc/{pid}/{link}");
                if let Ok(directory) = openat(CWD, path, flags, Mode::empty()) {
                    settle(directory);
                }
            }
        }
    }

    fn parents_of_mounts(&self) -> HashSet<PathBuf> {
        let path = format!("/proc/{}/mountinfo", self.init_pid);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // Names with escapes (spaces) are left out: no engine's own mount point has any.
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter_map(|point| Path::new(point).parent().map(Path::to_owned)).collect()
    }

    /// Processes of the cgroup and those below it, breadth first.
    fn processes(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = u32::try_from(self.init_pid).into_iter().collect();
        let mut groups = vec![(self.cgroup.clone(), 0)];
        let mut next = 0;
        while let Some((group, depth)) = groups.get(next).cloned() {
            next += 1;
            let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            let below = std::fs::read_dir(&group).into_iter().flatten().flatten();
            let below = below.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
            if depth < DEEPEST {
                let room = MOST.saturating_sub(groups.len());
                groups.extend(below.take(room).map(|e| (e.path(), depth + 1)));
            }
            if pids.len() >= MOST {
                break;
            }
        }
        pids.truncate(MOST);
        pids
    }
}

fn attributes(fd: impl AsFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(fd, "", flags, StatxFlags::BASIC_STATS)?)
}

fn is_directory(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
}

/// A change of attributes that changes nothing. Says whether the directory is in the upper one now.
fn copy_up(directory: &OwnedFd, stat: &Statx) -> bool {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mode = Mode::from_raw_mode(stat.stx_mode.into());
    // Fails on a read-only root, into which the engine copies nothing either.
    chmodat(CWD, path, mode, AtFlags::empty())
        .inspect_err(|e| tracing::debug!("a directory in use stays in the image's layers: {e}"))
        .is_ok()
}
