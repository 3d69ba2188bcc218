//! Stores in the layers of real overlays. They need root.

use std::ffi::CString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// An engine's overlay: the image's layer, the container's, and the mount.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn new() -> Self {
        let overlay = Self(tempfile::tempdir_in("/var/tmp").unwrap());
        for name in ["image", "diff", "work", "merged"] {
            fs::create_dir(overlay.dir(name)).unwrap();
        }
        overlay
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mount(&self) -> OwnedFd {
        let [image, diff, work, merged] = ["image", "diff", "work", "merged"].map(|n| self.dir(n));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            diff.display(),
            work.display()
        );
        let options = CString::new(options).unwrap();
        mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        rustix::fs::open(&merged, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    fn unmount(&self) {
        unmount(self.dir("merged"), UnmountFlags::DETACH).unwrap();
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(self.dir("merged"), UnmountFlags::DETACH);
    }
}

const DOCKER: &str = "/var/lib/docker";

#[test]
fn a_store_that_the_image_has_not_is_made_in_the_layer() {
    let overlay = Overlay::new();
    let root = overlay.mount();
    let layer = Layer::of(root.as_fd()).unwrap();
    let store = layer.store(root.as_fd(), DOCKER, 0o710).unwrap();
    assert_eq!(store, overlay.dir("diff/var/lib/docker"));
    assert_eq!(fs::metadata(&store).unwrap().mode() & 0o7777, 0o710);
    assert_eq!(fs::metadata(overlay.dir("diff/var")).unwrap().mode() & 0o7777, 0o755);
    // It is there again after a restart, with what was put in behind the overlay's back.
    fs::write(store.join("inner"), "x").unwrap();
    overlay.unmount();
    let root = overlay.mount();
    let layer = Layer::of(root.as_fd()).unwrap();
    assert_eq!(layer.store(root.as_fd(), DOCKER, 0o710).unwrap(), store);
    assert_eq!(fs::read(overlay.dir("merged/var/lib/docker/inner")).unwrap(), b"x");
}

#[test]
fn what_the_image_has_is_brought_into_the_layer_once() {
    let overlay = Overlay::new();
    let image = overlay.dir("image/var/lib/docker");
    fs::create_dir_all(image.join("overlay2/x")).unwrap();
    fs::set_permissions(&image, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(image.join("overlay2/x/file"), "baked").unwrap();
    fs::write(image.join("deleted"), "baked").unwrap();
    // Something was in the layer alone already: `docker cp` into a container before its start.
    fs::create_dir_all(overlay.dir("diff/var/lib/docker")).unwrap();
    fs::write(overlay.dir("diff/var/lib/docker/copied"), "in").unwrap();
    let root = overlay.mount();
    let layer = Layer::of(root.as_fd()).unwrap();
    let store = layer.store(root.as_fd(), DOCKER, 0o710).unwrap();
    assert_eq!(fs::read(store.join("overlay2/x/file")).unwrap(), b"baked");
    assert_eq!(fs::read(store.join("copied")).unwrap(), b"in");
    fs::remove_file(store.join("deleted")).unwrap();
    overlay.unmount();

    let root = overlay.mount();
    Layer::of(root.as_fd()).unwrap().store(root.as_fd(), DOCKER, 0o710).unwrap();
    assert!(!store.join("deleted").exists(), "what was deleted stays so");
    assert!(!overlay.dir("merged/var/lib/docker/deleted").exists(), "for the engine, too");
    assert!(image.join("deleted").exists(), "the image is not touched");
    let beside = fs::read_dir(overlay.0.path()).unwrap().count();
    assert_eq!(beside, 4, "nothing is left beside the directories");
}

#[test]
fn links_of_the_image_and_of_an_earlier_life_lead_nowhere() {
    let overlay = Overlay::new();
    fs::create_dir_all(overlay.dir("image/var/lib")).unwrap();
    fs::create_dir_all(overlay.dir("image/data/engine")).unwrap();
    symlink("/data/engine", overlay.dir("image/var/lib/docker")).unwrap();
    let root = overlay.mount();
    let store = Layer::of(root.as_fd()).unwrap().store(root.as_fd(), DOCKER, 0o710).unwrap();
    assert_eq!(store, overlay.dir("diff/data/engine"), "a link inside the root is followed there");
    overlay.unmount();

    // The container replaced a directory on the way by a link to one of the host.
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(outside.path().join("engine")).unwrap();
    fs::remove_dir_all(overlay.dir("diff/data")).unwrap();
    symlink(outside.path(), overlay.dir("diff/data")).unwrap();
    assert!(open_store(&store).is_err());
    let root = overlay.mount();
    let _ = Layer::of(root.as_fd()).unwrap().store(root.as_fd(), DOCKER, 0o710);
    assert_eq!(fs::read_dir(outside.path().join("engine")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_root_that_is_no_overlay_has_its_stores_in_place() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir_all(dir.path().join("var/lib/docker")).unwrap();
    let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
    let layer = Layer::of(root.as_fd()).unwrap();
    let store = layer.store(root.as_fd(), DOCKER, 0o710).unwrap();
    assert_eq!(store, dir.path().join("var/lib/docker"));
    // A directory in an overlay is no root that an engine mounted, and nothing for an upper directory.
    let overlay = Overlay::new();
    fs::create_dir(overlay.dir("image/sub")).unwrap();
    drop(overlay.mount());
    let sub = rustix::fs::open(overlay.dir("merged/sub"), OFlags::PATH, Mode::empty()).unwrap();
    assert!(Layer::of(sub.as_fd()).is_none());
}
