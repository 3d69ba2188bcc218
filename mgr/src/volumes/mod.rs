//! Stores of inner engines: a directory of the host for each.
//!
//! An inner Docker cannot keep its layers on the container's own root, which is an overlay itself.
//! So for each store that the image shows the need for ([`need`]) there is a directory on a real file
//! system, which the runtime mounts, ID-mapped. Usually that is a directory of the container's own
//! layer ([`Layer`]), which the engine keeps, commits and removes with the container.
//!
//! Where the engine has no layer on such a file system (a read-only overlay, a root on FUSE or tmpfs)
//! it is a *volume* of ours, under `<data root>/volumes/<id>/`, filled with what the image has there. A
//! volume lives exactly as long as the container that the engine knows: it survives stop and start, a
//! reboot and any death of the manager, and goes when the engine removes the container's *owner*
//! directory ([`Owner`]).

mod config;
mod copy;
mod layer;
mod mounted;
mod need;
pub mod notes;
mod owner;
mod table;
mod trash;
mod watch;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

pub use layer::{Layer, open_store};
pub use need::Needed;
pub use owner::{Owner, Presence, inode, is_at, upper_of};
pub use table::{PROGRAM_DIRS, STORES, StoreKind};
pub use watch::OwnerWatch;

use crate::error::{Doing as _, Error, Result};
use copy::Originals;
use rustix::fs::{Mode, OFlags};
use sysbox_ipc::crash;
use trash::Trash;

/// Names that no container id can be (ids have no `@`).
const TRASH: &str = "@trash";
const UNFINISHED: &str = "@unfinished";
/// File beside the volumes that says whose they are, should the record be lost.
const OWNER_FILE: &str = "owner.json";

/// All volumes of a data root.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    trash: Trash,
}

/// Volumes without a record, as found on disk.
#[derive(Debug)]
pub struct Orphan {
    /// The container.
    pub id: String,
    /// Its owner.
    pub owner: Owner,
    /// Its volumes.
    pub stores: Vec<&'static StoreKind>,
}

impl Volumes {
    /// Opens `<data_root>/volumes`.
    pub fn open(data_root: &Path) -> io::Result<Self> {
        let dir = data_root.join("volumes");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let trash = Trash::open(&dir.join(TRASH))?;
        Ok(Self { dir, trash })
    }

    /// The host's directory of a volume.
    pub fn path(&self, id: &str, name: &str) -> PathBuf {
        self.dir.join(id).join(name)
    }

    /// The stores that a container needs. `existing`: names of the volumes that it has from before.
    pub fn plan(
        &self,
        root: BorrowedFd<'_>,
        mounts: &[String],
        existing: impl Fn(&str) -> bool,
    ) -> Vec<Needed> {
        need::stores(root, mounts, existing)
    }

    /// Makes a volume and fills it with what the image has there. It appears under its name only when
    /// it is complete.
    pub fn create(&self, id: &str, owner: &Owner, planned: &Needed) -> Result<()> {
        let name = &planned.name;
        let doing = |what: &str| format!("{what} volume {name} of container {id}");
        let container = self.dir.join(id);
        let unfinished = container.join(format!("{UNFINISHED}-{name}"));
        let advice = |e: Error| {
            e.remedy(format!("see that {} has room and is writable", self.dir.display()))
        };
        let make = || -> io::Result<OwnedFd> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&container)?;
            self.write_owner(&container, owner)?;
            self.trash.take(&unfinished)?;
            // The mode is set apart from the creation, which the umask would narrow.
            fs::create_dir(&unfinished)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&unfinished, flags, Mode::empty())?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(planned.mode))?;
            Ok(fd)
        };
        let target = make().doing(|| doing("making")).map_err(advice)?;
        if let Some(image) = &planned.image {
            let entries = copy::tree(image.as_fd(), target.as_fd(), &Originals::none())
                .and_then(|entries| notes::apply(target.as_fd()).map(|()| entries))
                .doing(|| format!("{} with {} of the image", doing("filling"), planned.destination))
                .map_err(advice)?;
            if entries > 0 {
                // Under its final name the volume counts as complete, after a power failure too.
                rustix::fs::syncfs(&target).doing(|| doing("writing"))?;
            }
        }
        crash::point("volume.made");
        fs::rename(&unfinished, container.join(name)).doing(|| doing("making")).map_err(advice)?;
        crash::point("volume.placed");
        Ok(())
    }

    /// Deletes one volume, and the container's directory with the last one.
    pub fn discard(&self, id: &str, name: &str) -> io::Result<()> {
        let container = self.dir.join(id);
        self.trash.take(&container.join(format!("{UNFINISHED}-{name}")))?;
        self.trash.take(&container.join(name))?;
        if self.stores_in(&container).is_empty() {
            self.trash.take(&container)?;
        }
        Ok(())
    }

    /// Deletes all volumes of a container.
    pub fn discard_all(&self, id: &str) -> io::Result<()> {
        self.trash.take(&self.dir.join(id))
    }

    /// Volumes of containers that `known` does not know: their record was lost.
    pub fn orphans(&self, known: impl Fn(&str) -> bool) -> io::Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if id == TRASH || known(&id) {
                continue;
            }
            match owner_of(&entry.path()) {
                Ok(owner) => {
                    let stores = self.stores_in(&entry.path());
                    orphans.push(Orphan { id, owner, stores });
                }
                Err(e) => {
                    let path = entry.path();
                    tracing::warn!(
                        directory = %path.display(),
                        "no record says whose volumes these are, and {OWNER_FILE} in it cannot be read ({e}); remove the directory by hand if the container is gone"
                    );
                }
            }
        }
        Ok(orphans)
    }

    /// Goes on with deleting what was removed.
    pub fn empty_trash(&self) {
        self.trash.wake();
    }

    fn stores_in(&self, container: &Path) -> Vec<&'static StoreKind> {
        let exists = |s: &&StoreKind| fs::symlink_metadata(container.join(s.name)).is_ok();
        STORES.iter().filter(exists).collect()
    }

    fn write_owner(&self, container: &Path, owner: &Owner) -> io::Result<()> {
        let file = container.join(OWNER_FILE);
        let new = container.join("@owner");
        fs::write(&new, serde_json::to_vec_pretty(owner)?)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(new, file)
    }
}

/// The owner of the volumes in a container's directory, as written beside them.
pub fn owner_of(container: &Path) -> io::Result<Owner> {
    Ok(serde_json::from_slice(&fs::read(container.join(OWNER_FILE))?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_volume_starts_with_what_the_image_has_and_is_found_again() {
        let base = tempfile::tempdir_in("/var/tmp").unwrap();
        let rootfs = base.path().join("rootfs");
        fs::create_dir_all(rootfs.join("var/lib/docker/overlay2")).unwrap();
        fs::write(rootfs.join("var/lib/docker/baked"), "in").unwrap();
        let root = rustix::fs::open(&rootfs, OFlags::PATH, Mode::empty()).unwrap();
        let volumes = Volumes::open(base.path()).unwrap();
        let owner = Owner::of(&rootfs).unwrap();

        let plan = volumes.plan(root.as_fd(), &[], |_| false);
        assert_eq!(plan.len(), 1);
        volumes.create("c1", &owner, &plan[0]).unwrap();
        let volume = volumes.path("c1", "docker");
        assert_eq!(fs::read(volume.join("baked")).unwrap(), b"in");
        assert_eq!(fs::metadata(base.path().join("volumes/c1")).unwrap().mode() & 0o777, 0o700);

        let orphans = volumes.orphans(|_| false).unwrap();
        assert_eq!((orphans.len(), &*orphans[0].id), (1, "c1"));
        assert_eq!(orphans[0].owner, owner);
        assert_eq!(orphans[0].stores[0].name, "docker");
        assert!(volumes.orphans(|id| id == "c1").unwrap().is_empty());

        volumes.discard("c1", "docker").unwrap();
        assert!(!base.path().join("volumes/c1").exists());
    }
}
