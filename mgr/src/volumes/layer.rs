//! Stores in the container's own layer: what an inner engine keeps is part of the container.
//!
//! An inner Docker cannot have its layers on the container's root, which is an overlay; but the
//! overlay's *upper directory* lies on a real file system, and belongs to this container alone. So the
//! store is simply the directory `<upper>/var/lib/docker`, which the runtime mounts, ID-mapped, over
//! the same directory of the overlay. Then
//! - `docker commit`, `diff`, `cp`, `export` and the size of the engine see it, for that is where they
//!   look;
//! - it is kept, and it goes, with the container, whether or not we run at that moment;
//! - quotas of the engine (`--storage-opt size=`) hold for it.
//!
//! It must show what the image has there, too (inner images that were built into it). A store is made
//! of small files that are rewritten and of layers that are not, and an engine removes both; so what
//! the image has is brought into the upper directory, once, with its data shared where the file
//! system can (xfs, btrfs), and the directory is marked *opaque*: from then on the overlay, too, shows
//! there what is in the upper directory and nothing else. The mark also says that this was finished.
//!
//! What an image can't hold (attributes, whiteouts) is in its [notes](super::notes).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, XattrFlags, chmodat, chownat,
    fstat, fstatfs, getxattr, openat, openat2, renameat_with, setxattr, syncfs,
};
use rustix::io::Errno;

use super::copy::{self, Originals};
use super::{mounted, need, notes};

/// File systems on which an overlay can have its upper directory (linux/magic.h).
const REAL: &[u64] = &[
    0xEF53,      // ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
];

/// overlayfs.rst: nothing of the lower layers shows in a directory with this.
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

/// The directory on a real file system that a container's root is written to.
#[derive(Debug)]
pub struct Layer {
    /// The overlay's upper directory, or the root itself where it is none.
    top: OwnedFd,
    path: PathBuf,
    /// All directories of the overlay, this one first; empty without overlay.
    layers: Vec<OwnedFd>,
    /// Owner of container root's files: another than 0 where the engine shifts them itself.
    root: (u32, u32),
}

impl Layer {
    /// The layer of the container whose root the engine mounted at `root`; `None` where a store in it
    /// could not have overlays.
    pub fn of(root: BorrowedFd<'_>) -> Option<Self> {
        let stat = fstat(root).ok()?;
        let owner = (stat.st_uid, stat.st_gid);
        let mount = mounted::of(root)?;
        let Some(overlay) = mount.overlay else {
            let (path, top) = (mounted::path_of(root)?, open(root, Path::new(".")).ok()?);
            return is_real(&top).then_some(Self { top, path, layers: Vec::new(), root: owner });
        };
        // A directory somewhere below an overlay's mount point is none of an engine's.
        if !mount.whole || mounted::path_of(root)? != mount.mount_point {
            return None;
        }
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Docker names layers relative to its directory when there are many.
        let base = mount.mount_point.parent().and_then(Path::parent)?;
        let layer = |path: &Path| openat(CWD, base.join(path), directory, Mode::empty()).ok();
        let top = layer(&overlay.upper?)?;
        let path = mounted::path_of(&top)?;
        if !is_real(&top) {
            return None;
        }
        let first = top.try_clone().ok()?;
        let layers = std::iter::once(first).chain(overlay.lower.iter().filter_map(|p| layer(p)));
        Some(Self { layers: layers.collect(), top, path, root: owner })
    }

    /// Makes the store at `destination` ready and returns its directory on the host. `root`: as the
    /// engine mounted it, which is up to date only after its caches were dropped.
    ///
    /// The path that is returned has no links; whoever opens it later must not follow any.
    pub fn store(&self, root: BorrowedFd<'_>, destination: &str, mode: u32) -> io::Result<PathBuf> {
        let shown = need::make_directory(root, destination, Mode::from_raw_mode(mode), |made| {
            let (uid, gid) = (Uid::from_raw(self.root.0), Gid::from_raw(self.root.1));
            chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        })?;
        let below = need::path_in_root(root, shown.as_fd())
            .and_then(|path| path.strip_prefix("/").map(Path::to_owned).ok())
            .ok_or_else(|| io::Error::other("it is not inside the root file system"))?;
        if self.layers.is_empty() {
            let store = open(self.top.as_fd(), &below)?;
            notes::apply(store.as_fd())?;
            return Ok(self.path.join(below));
        }
        // A change that changes nothing brings the directory itself into the upper one.
        let proc = copy::proc_path(shown.as_fd());
        chmodat(CWD, proc, Mode::from_raw_mode(fstat(&shown)?.st_mode & 0o7777), AtFlags::empty())?;
        let store = open(self.top.as_fd(), &below)?;
        if is_opaque(&store) {
            notes::forget(store.as_fd())?;
        } else if is_empty(&shown)? {
            make_opaque(&store)?;
        } else {
            self.fill(shown.as_fd(), &below)?;
        }
        Ok(self.path.join(below))
    }

    /// Brings everything that shows at a directory into the upper one, all at once.
    fn fill(&self, shown: BorrowedFd<'_>, below: &Path) -> io::Result<()> {
        let name = format!("sysbox-fill-{}", below.display().to_string().replace('/', "-"));
        // Beside the upper directory: the same file system, and it goes with the container.
        let new = self.path.with_file_name(name);
        remove(&new)?;
        fs::create_dir(&new)?;
        let made = open(CWD, &new)?;
        let originals = Originals::new(&self.layers, below);
        copy::tree(shown, made.as_fd(), &originals)?;
        notes::apply(made.as_fd())?;
        make_opaque(&made)?;
        // With the mark it counts as complete, after a power failure too.
        syncfs(openat(&made, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)?;
        let parent = below.parent().unwrap_or(Path::new(""));
        let parent =
            open(self.top.as_fd(), if parent == Path::new("") { Path::new(".") } else { parent })?;
        let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        renameat_with(CWD, &new, &parent, name, RenameFlags::EXCHANGE)?;
        // What was in the upper directory alone, before this container was ours.
        remove(&new)
    }
}

fn open(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(at, path, flags, Mode::empty(), resolve)?)
}

/// Opens a store by the path that [`Layer::store`] returned.
pub fn open_store(path: &Path) -> io::Result<OwnedFd> {
    open(CWD, path)
}

fn is_real(fd: impl AsFd) -> bool {
    fstatfs(fd).is_ok_and(|fs| REAL.contains(&(fs.f_type as u64)))
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 1];
    getxattr(copy::proc_path(directory.as_fd()), OPAQUE, &mut value) == Ok(1) && value == *b"y"
}

fn make_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(setxattr(copy::proc_path(directory.as_fd()), OPAQUE, b"y", XattrFlags::empty())?)
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = rustix::fs::Dir::new(openat(directory, ".", flags, Mode::empty())?)?;
    for entry in entries {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.raw_os_error() != Some(Errno::NOENT.raw_os_error()) => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
