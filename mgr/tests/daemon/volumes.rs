//! Stores of inner engines: kept with the container, and removed with it.
//!
//! Most of these containers have their root on a tmpfs, where a store can't be in the container's own
//! layer, so that they get volumes of the manager.

use std::fs;
use std::path::{Path, PathBuf};

use sysbox_ipc::proto;

use crate::host::Host;
use crate::need_root;

/// A request for a container that has Docker in its image and a layer directory.
fn docker(host: &Host, id: &str) -> (proto::Register, PathBuf) {
    let mut request = host.request_with_volume(id);
    let image = Path::new(&request.rootfs).join("var/lib/docker");
    fs::write(image.join("baked"), "in").unwrap();
    let layer = host.path(&format!("layers/{id}"));
    fs::create_dir_all(&layer).unwrap();
    request.owner_dir = layer.to_str().unwrap().into();
    (request, layer)
}

/// One run of the container; returns its volume.
fn once(host: &Host, request: &proto::Register) -> PathBuf {
    let (registered, init) = host.run(request);
    drop(init);
    host.client().unregister(&request.id).unwrap();
    assert_eq!(registered.volumes.len(), 1, "{:?}", registered.volumes);
    assert_eq!(registered.volumes[0].destination, "/var/lib/docker");
    PathBuf::from(&registered.volumes[0].source)
}

#[test]
fn a_store_in_the_layer_needs_no_volume_and_no_record() {
    need_root!();
    let host = Host::new();
    let request = host.request("c1");
    fs::create_dir_all(Path::new(&request.rootfs).join("var/lib/docker")).unwrap();
    let store = once(&host, &request);
    assert_eq!(store, Path::new(&request.rootfs).join("var/lib/docker"));
    assert_eq!((host.state("c1"), host.volumes().len()), (None, 0));
    fs::write(store.join("inner-image"), "data").unwrap();
    // What an image would lose is written down when the container ends, and when it is paused.
    let mark = |name| rustix::fs::setxattr(&store, name, b"y", rustix::fs::XattrFlags::empty());
    fs::create_dir(store.join("overlay2")).unwrap();
    mark(c"user.of-the-store-itself").unwrap();
    let layer = store.join("overlay2");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&layer, c"user.overlay.opaque", b"y", flags).unwrap();
    let notes = store.join(".sysbox-store-notes");
    assert_eq!(once(&host, &request), store);
    assert!(notes.exists());
    let (_, _init) = host.run(&request);
    assert!(!notes.exists(), "what was noted has been done again");
    host.client().paused("c1").unwrap();
    assert!(notes.exists());
    assert_eq!(fs::read(store.join("inner-image")).unwrap(), b"data");
}

#[test]
fn volumes_live_as_long_as_their_owner() {
    need_root!();
    let host = Host::new();
    let (request, layer) = docker(&host, "c1");
    let volume = once(&host, &request);
    assert_eq!(fs::read(volume.join("baked")).unwrap(), b"in");
    fs::write(volume.join("inner-image"), "data").unwrap();
    assert_eq!(host.state("c1").as_deref(), Some("stopped"));

    assert_eq!(once(&host, &request), volume);
    assert_eq!(fs::read(volume.join("inner-image")).unwrap(), b"data");

    // Removed at once, by inotify; long before the sweep.
    fs::remove_dir(&layer).unwrap();
    host.wait("the volume to go", || !volume.exists());
    host.wait("the record to go", || host.records().is_empty());
    assert!(host.volumes().is_empty());
}

#[test]
fn a_failed_restart_keeps_the_volumes() {
    need_root!();
    let host = Host::new();
    let (request, _layer) = docker(&host, "c1");
    let volume = once(&host, &request);
    // This time containerd is in the image too, but the runtime gives up.
    fs::create_dir_all(Path::new(&request.rootfs).join("var/lib/containerd")).unwrap();
    let client = host.client();
    let (registered, _) = client.register(&request).unwrap();
    assert_eq!(registered.volumes.len(), 2);
    client.unregister("c1").unwrap();
    assert_eq!(host.state("c1").as_deref(), Some("stopped"));
    assert!(volume.join("baked").exists());
    assert!(!Path::new(&registered.volumes[1].source).exists(), "the new one is taken back");
}

#[test]
fn another_container_of_the_same_id_gets_a_store_of_its_own() {
    need_root!();
    let host = Host::new();
    let (request, _layer) = docker(&host, "c1");
    let volume = once(&host, &request);
    fs::write(volume.join("secret"), "of the first").unwrap();
    let (mut second, _) = docker(&host, "other-layer");
    second.id = "c1".into();
    let volume = once(&host, &second);
    assert!(volume.join("baked").exists() && !volume.join("secret").exists());
}

#[test]
fn no_volume_where_the_user_mounted_something_or_wants_none() {
    need_root!();
    let host = Host::new();
    let (mut request, _layer) = docker(&host, "c1");
    request.mount_destinations = vec!["/var/lib/docker/overlay2".into()];
    assert!(host.client().register(&request).unwrap().0.volumes.is_empty());
    host.wait("the rollback", || host.records().is_empty());
    request.mount_destinations.clear();
    request.inner_stores = false;
    assert!(host.client().register(&request).unwrap().0.volumes.is_empty());
}

#[test]
fn owners_that_went_away_meanwhile_are_found_at_start() {
    need_root!();
    let mut host = Host::new();
    let (request, layer) = docker(&host, "c1");
    let (kept, _layer) = docker(&host, "c2");
    once(&host, &request);
    let volume = once(&host, &kept);
    host.stop(rustix::process::Signal::KILL);
    fs::remove_dir(&layer).unwrap();
    // The record of the other is lost, too; what is beside its volume says whose it is.
    fs::write(host.path("data/containers/c2.json"), "garbage").unwrap();
    host.start();
    assert_eq!(host.volumes(), ["c2"]);
    assert_eq!(host.records(), ["c2.json", "c2.json.corrupt"]);
    fs::write(volume.join("inner-image"), "data").unwrap();
    assert_eq!(once(&host, &kept), volume);
    assert!(volume.join("inner-image").exists());
}
