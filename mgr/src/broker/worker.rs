//! A thread that goes to other places: the caller's root directory, file-system identity, mount or
//! network namespace. Every excursion is a closure, and ends at home.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::{chroot, fchdir, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, UnshareFlags, capabilities,
    move_into_link_name_space, set_capabilities, set_thread_groups,
};
use sysbox_kernel::{ns, process};

use super::host::{Host, read_file};

/// The identity with which the kernel checks access to files.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: &'a [u32],
    /// Those of the manager's capabilities over files that stay; the others are put down.
    pub keep: CapabilitySet,
    /// File mode creation mask.
    pub umask: u32,
}

/// The state of the calling thread. Not to be moved to another one.
#[derive(Debug)]
pub struct Worker {
    /// What is at home.
    pub host: Arc<Host>,
    /// The way back failed: the thread is not where it should be and must end.
    lost: bool,
}

impl Worker {
    /// Makes the calling thread a worker: gives it a root and working directory, file mode mask
    /// and groups of its own.
    pub fn new(host: Arc<Host>) -> io::Result<Self> {
        ns::unshare(UnshareFlags::FS)?;
        set_thread_groups(&[])?;
        Ok(Self { host, lost: false })
    }

    /// Whether the thread must not be used again.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Runs `work` with another root and working directory; without the latter it is the root.
    pub fn within<T>(
        &mut self,
        root: &OwnedFd,
        working_directory: Option<&OwnedFd>,
        work: impl FnOnce(&mut Self) -> T,
    ) -> io::Result<T> {
        let there = fchdir(root)
            .and_then(|()| chroot("."))
            .and_then(|()| working_directory.map_or(Ok(()), fchdir));
        let result = there.map(|()| work(self));
        let back = fchdir(&self.host.root).and_then(|()| chroot("."));
        self.came_back(back)?;
        Ok(result?)
    }

    /// Runs `work` with the access rights to files of another user.
    pub fn acting_as<T>(
        &mut self,
        who: Identity<'_>,
        work: impl FnOnce(&mut Self) -> T,
    ) -> io::Result<T> {
        let own = capabilities(None)?;
        let there = take_on(who, own);
        let result = there.map(|()| work(self));
        umask(Mode::from_raw_mode(0o022));
        let ids = process::set_fs_ids(0, 0).map(drop);
        let rights = set_capabilities(None, own);
        let groups = set_thread_groups(&[]);
        self.came_back(ids)?;
        self.came_back(rights)?;
        self.came_back(groups)?;
        result
    }

    /// Runs `work` in another mount namespace, at its root directory.
    pub fn in_mount_namespace<T>(
        &mut self,
        namespace: &OwnedFd,
        work: impl FnOnce(&mut Self) -> T,
    ) -> io::Result<T> {
        enter(namespace, LinkNameSpaceType::Mount)?;
        let result = work(self);
        let back = enter(&self.host.mount_namespace, LinkNameSpaceType::Mount);
        self.came_back(back)?;
        Ok(result)
    }

    /// Runs `work` in another network namespace.
    pub fn in_net_namespace<T>(
        &mut self,
        namespace: &OwnedFd,
        work: impl FnOnce(&mut Self) -> T,
    ) -> io::Result<T> {
        enter(namespace, LinkNameSpaceType::Network)?;
        let result = work(self);
        let back = enter(&self.host.net_namespace, LinkNameSpaceType::Network);
        self.came_back(back)?;
        Ok(result)
    }

    /// The mounts of the namespace that the thread is in now.
    pub fn own_mountinfo(&self) -> io::Result<Vec<u8>> {
        read_file(&self.host.proc, "thread-self/mountinfo")
    }

    fn came_back<E: Into<io::Error>>(&mut self, back: Result<(), E>) -> io::Result<()> {
        back.map_err(|error| {
            self.lost = true;
            let error = error.into();
            tracing::error!(%error, "a broker thread can't get back to where it belongs; it ends");
            error
        })
    }
}

fn take_on(who: Identity<'_>, mut rights: CapabilitySets) -> io::Result<()> {
    let groups: Vec<Gid> = who.groups.iter().map(|&id| Gid::from_raw(id)).collect();
    set_thread_groups(&groups)?;
    process::set_fs_ids(who.uid, who.gid)?;
    // After the ids: setfsuid(2) moves these capabilities by rules of its own.
    rights.effective = rights.effective.difference(over_files()).union(who.keep);
    set_capabilities(None, rights)?;
    umask(Mode::from_raw_mode(who.umask));
    Ok(())
}

/// The capabilities that setfsuid(2) moves, `CAP_FS_MASK` of the kernel.
fn over_files() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::MKNOD
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::LINUX_IMMUTABLE
        | CapabilitySet::MAC_OVERRIDE
}

fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> rustix::io::Result<()> {
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::host::Features;

    /// Runs as root only; in a thread of its own, which is changed for good.
    #[test]
    fn an_excursion_ends_at_home_with_all_rights() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let test = || {
            let host = Arc::new(Host::new(Features::probe().unwrap()).unwrap());
            let mut worker = Worker::new(host).unwrap();
            let before = capabilities(None).unwrap();
            let who = Identity {
                uid: 70_000,
                gid: 70_001,
                groups: &[70_002],
                keep: CapabilitySet::MKNOD,
                umask: 0o77,
            };
            let inside = worker.acting_as(who, |_| capabilities(None).unwrap().effective);
            let inside = inside.unwrap();
            assert!(inside.contains(CapabilitySet::MKNOD | CapabilitySet::SYS_ADMIN));
            assert!(!inside.intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN));
            assert_eq!(capabilities(None).unwrap(), before);
            // As the same user, the kernel moves no capabilities by itself.
            let who = Identity { uid: 0, gid: 0, ..who };
            let inside = worker.acting_as(who, |_| capabilities(None).unwrap().effective);
            assert!(!inside.unwrap().contains(CapabilitySet::DAC_OVERRIDE));
            assert_eq!(capabilities(None).unwrap(), before);

            let sys: OwnedFd = std::fs::File::open("/sys").unwrap().into();
            let seen = worker.within(&sys, Some(&sys), |_| std::fs::metadata("/proc").is_ok());
            assert!(!seen.unwrap());
            assert!(std::fs::metadata("/proc/self").is_ok());
            assert!(!worker.is_lost());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
