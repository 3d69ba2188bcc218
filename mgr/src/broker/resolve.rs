//! A path as the caller would walk it.
//!
//! The walk is done by the kernel, in a thread that has the caller's root, working directory and
//! access rights. What a walk by somebody else can't do are the links of procfs that depend on
//! who looks: `/proc/self` leads nowhere for a thread outside of the caller's pid namespace, and
//! `/proc/thread-self/fd/5` would be a descriptor of the manager. Container engines mount through
//! exactly these paths, so the ones that mean the caller itself are taken apart here; other magic
//! links are not followed, which ends in the kernel's own answer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::caller::Caller;
use super::worker::{Identity, Worker};

/// Inode number of the root of every procfs (`PROC_ROOT_INO`).
const PROC_ROOT_INODE: u64 = 1;

/// Finds the object at the end of a path; nothing is opened but its place (`O_PATH`).
///
/// `follow`: also a symbolic link at the very end.
///
/// # Errors
/// Those of the walk. The kernel, asked by the caller, may know better: refuse by continuing.
pub fn object(
    worker: &mut Worker,
    caller: &Caller<'_>,
    path: &[u8],
    follow: bool,
) -> io::Result<OwnedFd> {
    let root = caller.root()?;
    let start = caller.working_directory()?;
    from(worker, caller, &root, &start, path, follow)
}

/// As [`object`], with relative paths starting at `start`.
pub fn from(
    worker: &mut Worker,
    caller: &Caller<'_>,
    root: &OwnedFd,
    start: &OwnedFd,
    path: &[u8],
    follow: bool,
) -> io::Result<OwnedFd> {
    let identity = Identity {
        uid: caller.status.fsuid,
        gid: caller.status.fsgid,
        groups: &caller.status.groups,
        keep: CapabilitySet::empty(),
        umask: 0o077,
    };
    // It is gone to only if needed: it may be on a FUSE file system that was mounted inside and lets
    // nobody from outside in, as the roots of rootless engines' containers are.
    let from = (!path.starts_with(b"/")).then_some(start);
    worker.within(root, from, |worker| {
        if caller.overrides_search() {
            walk_as_caller(caller, root, start, path, follow)
        } else {
            worker.acting_as(identity, |_| walk_as_caller(caller, root, start, path, follow))?
        }
    })?
}

/// The thread is where the caller is.
fn walk_as_caller(
    caller: &Caller<'_>,
    root: &OwnedFd,
    working_directory: &OwnedFd,
    path: &[u8],
    follow: bool,
) -> io::Result<OwnedFd> {
    let ids = (caller.status.own_tgid, caller.status.own_tid);
    let Some(link) = own_link(path, ids) else {
        return walk(CWD, path, follow);
    };
    // The text looks like a link to the caller's own things; whether it is one, the object says.
    let proc = walk(CWD, link.proc, true)?;
    let is_proc =
        fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC && fstat(&proc)?.st_ino == PROC_ROOT_INODE;
    if !is_proc {
        return walk(CWD, path, follow);
    }
    if link.rest.is_empty() && !follow {
        return Err(Errno::LOOP.into());
    }
    let object = match link.target {
        Own::Descriptor(number) => caller.descriptor(number)?,
        Own::Root => root.try_clone()?,
        Own::WorkingDirectory => working_directory.try_clone()?,
    };
    if link.rest.is_empty() {
        return Ok(object);
    }
    walk(object.as_fd(), link.rest, follow)
}

fn walk(start: impl AsFd, path: &[u8], follow: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    Ok(openat2(start, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?)
}

/// Something of the caller that procfs links to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Descriptor(i32),
    Root,
    WorkingDirectory,
}

/// A path in three parts: a directory that may be a procfs, what is meant there, the rest.
#[derive(Debug, PartialEq, Eq)]
struct OwnLink<'a> {
    proc: &'a [u8],
    target: Own,
    rest: &'a [u8],
}

/// Takes `PROC/self/fd/5/rest` and its like apart. `ids`: process and thread id of the caller as
/// it knows them.
fn own_link(path: &[u8], ids: (u32, u32)) -> Option<OwnLink<'_>> {
    let parts = components(path);
    for (first, &(start, end)) in parts.iter().enumerate() {
        let name = |n: usize| parts.get(first + n).map(|&(start, end)| &path[start..end]);
        let is = |n: usize, id: u32| name(n).is_some_and(|name| number(name) == Some(id));
        let task = || name(1) == Some(b"task") && is(2, ids.1);
        let skip = match &path[start..end] {
            b"thread-self" => 1,
            b"self" if task() => 3,
            b"self" => 1,
            _ if is(0, ids.0) && task() => 3,
            _ if is(0, ids.0) => 1,
            _ => continue,
        };
        let (target, used) = match name(skip) {
            Some(b"root") => (Own::Root, skip + 1),
            Some(b"cwd") => (Own::WorkingDirectory, skip + 1),
            Some(b"fd") => match name(skip + 1).and_then(number).map(i32::try_from) {
                Some(Ok(descriptor)) => (Own::Descriptor(descriptor), skip + 2),
                _ => continue,
            },
            _ => continue,
        };
        let (_, last) = parts[first + used - 1];
        let rest = &path[last..];
        let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
        return Some(OwnLink {
            proc: match &path[..start] {
                b"" => b".",
                proc => proc,
            },
            target,
            rest: &rest[slashes..],
        });
    }
    None
}

/// (start, end) of each name in a path.
fn components(path: &[u8]) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let mut start = None;
    for (at, &byte) in path.iter().chain(b"/").enumerate() {
        match (byte, start) {
            (b'/', Some(from)) => {
                parts.push((from, at));
                start = None;
            }
            (b'/', None) | (_, Some(_)) => {}
            (_, None) => start = Some(at),
        }
    }
    parts
}

/// A number as procfs takes it: digits only, no leading zero.
fn number(name: &[u8]) -> Option<u32> {
    let plain = name == b"0" || !name.starts_with(b"0");
    let digits = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(name).ok()?;
    (plain && digits).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(&str, Own, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        own_link(path.as_bytes(), (17, 18))
            .map(|link| (text(link.proc), link.target, text(link.rest)))
    }

    #[test]
    fn links_of_the_caller_are_found() {
        let fd = Own::Descriptor;
        for (path, expected) in [
            ("/proc/self/fd/7", ("/proc/", fd(7), "")),
            ("/proc/thread-self/fd/0/a/b", ("/proc/", fd(0), "a/b")),
            ("/proc/self/task/18/fd/7", ("/proc/", fd(7), "")),
            ("/proc/17/task/18/fd/7", ("/proc/", fd(7), "")),
            ("//proc//17///fd/7//", ("//proc//", fd(7), "")),
            ("/proc/self/root/mnt", ("/proc/", Own::Root, "mnt")),
            ("self/cwd/x", (".", Own::WorkingDirectory, "x")),
            ("/a/self/b/self/fd/3", ("/a/self/b/", fd(3), "")),
        ] {
            assert_eq!(parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn other_paths_are_left_alone() {
        for path in [
            "",
            "/",
            "/proc",
            "/proc/self",
            "/proc/self/fd",
            "/proc/self/fd/",
            "/proc/self/fd/x",
            "/proc/self/fd/07",
            "/proc/self/fd/99999999999",
            "/proc/self/fd/4294967295",
            "/proc/18/fd/7",
            "/proc/1/root",
            "/self/exe",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
