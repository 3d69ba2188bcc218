//! Two overlays over one upper directory: the engine's and the container's.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use sysbox_ipc::proto;
use sysbox_kernel::ns::{UnshareFlags, unshare};

use crate::host::{Host, Init};
use crate::need_root;

/// A layer as Docker's overlay2 driver makes it, and a second overlay over it for the container.
struct Layer {
    dir: PathBuf,
    /// Name of the engine's mount point.
    merged: &'static str,
}

impl Layer {
    /// Needs a mount namespace of the test's own.
    fn new(host: &Host, merged: &'static str) -> Self {
        let dir = host.path("layer");
        for name in ["lower-dir/etc/old", "diff", "work", "work2", merged, "container"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("lower-dir/etc/file"), "low").unwrap();
        fs::copy("/bin/busybox", dir.join("lower-dir/busybox")).unwrap();
        let layer = Self { dir, merged };
        layer.mount("work", merged);
        layer.mount("work2", "container");
        layer
    }

    fn mount(&self, work: &str, target: &str) {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", at("lower-dir"), at("diff"), at(work));
        let options = CString::new(options).unwrap();
        mount("overlay", self.dir.join(target), "overlay", MountFlags::empty(), &*options).unwrap();
    }

    /// Starts a container whose init has the second overlay for its root.
    fn run(&self, host: &Host) -> Init {
        let request = proto::Register {
            rootfs: self.dir.join(self.merged).to_str().unwrap().into(),
            owner_dir: self.dir.to_str().unwrap().into(),
            ..host.request("c1")
        };
        let client = host.client();
        client.register(&request).unwrap();
        let mut command = Command::new("chroot");
        command.arg(self.dir.join("container")).args(["/busybox", "sleep", "1000"]);
        let init = Init::start(&mut command);
        let root = PathBuf::from(format!("/proc/{}/root", init.pid()));
        host.wait("init to have its root", || {
            fs::read_link(&root).is_ok_and(|r| r.ends_with("container"))
        });
        client.commit("c1", init.pid()).unwrap();
        init
    }
}

impl Drop for Layer {
    /// So that the test's directory can be removed.
    fn drop(&mut self) {
        for target in [self.merged, "container"] {
            let _ = unmount(self.dir.join(target), UnmountFlags::DETACH);
        }
    }
}

/// A mount namespace for this thread and what it starts.
pub fn own_mounts() {
    unshare(UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// A layer in a mount namespace of the test's own, and the daemon, which runs in the same.
fn host_and_layer(merged: &'static str) -> (Host, Layer) {
    own_mounts();
    let mut host = Host::without_daemon();
    let layer = Layer::new(&host, merged);
    host.fs = crate::fake_fs::start(&host.run_dir());
    host.start();
    (host, layer)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Both sides look and remember, change something, and look again. `begin` and `end` are what the engine
/// does before and after it works with its mount.
fn looks_are_fresh(layer: &Layer, begin: &dyn Fn(), end: &dyn Fn()) {
    let (engine, container) = (layer.dir.join(layer.merged), layer.dir.join("container"));
    for round in 0..20 {
        let (made, brought) = (format!("etc/made{round}"), format!("etc/brought{round}"));
        assert!(!engine.join(&made).exists() && !container.join(&brought).exists());
        names(&engine.join("etc"));
        names(&container.join("etc"));

        fs::write(container.join(&made), "by the container").unwrap();
        fs::write(container.join("etc/file"), format!("changed {round}")).unwrap();
        begin();
        assert_eq!(fs::read_to_string(engine.join(&made)).unwrap(), "by the container");
        let changed = fs::read_to_string(engine.join("etc/file")).unwrap();
        assert_eq!(changed, format!("changed {round}"));
        assert!(names(&engine.join("etc")).contains(&format!("made{round}")));
        fs::write(engine.join(&brought), "by docker cp").unwrap();
        end();
        assert_eq!(fs::read_to_string(container.join(&brought)).unwrap(), "by docker cp");
    }
}

#[test]
fn with_docker_each_look_is_fresh_in_both_directions() {
    need_root!();
    let (host, layer) = host_and_layer("merged");
    let lower = layer.dir.join("lower");
    fs::write(&lower, "l/XYZ").unwrap();
    let _init = layer.run(&host);
    let open_lower = || drop(fs::File::open(&lower).unwrap());
    looks_are_fresh(&layer, &open_lower, &open_lower);
}

/// A Docker that keeps images in containerd begins with an open of the merged root, and has no sign of the end.
#[test]
fn each_look_that_begins_at_the_root_is_fresh_in_both_directions() {
    need_root!();
    let (host, layer) = host_and_layer("rootfs");
    let _init = layer.run(&host);
    let open_root = || drop(fs::File::open(layer.dir.join(layer.merged)).unwrap());
    looks_are_fresh(&layer, &open_root, &|| ());
}

#[test]
fn with_other_engines_the_next_look_is_fresh() {
    need_root!();
    let (host, layer) = host_and_layer("rootfs");
    let _init = layer.run(&host);
    let (engine, container) = (layer.dir.join("rootfs"), layer.dir.join("container"));
    names(&engine.join("etc"));
    assert!(!engine.join("etc/made").exists());
    fs::write(container.join("etc/made"), "by the container").unwrap();
    // An unrelated look is enough; here each of the waits is one.
    host.wait("the engine to see it", || {
        names(&engine.join("etc"));
        engine.join("etc/made").exists()
    });
}

#[test]
fn options_of_the_engines_mount_do_not_change() {
    need_root!();
    let (host, layer) = host_and_layer("merged");
    fs::write(layer.dir.join("lower"), "l/XYZ").unwrap();
    let engine = layer.dir.join("merged");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID;
    rustix::mount::mount_remount(&engine, flags, "").unwrap();
    let mounts = || {
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        text.lines().filter(|l| l.contains("/layer/")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = mounts();
    let init = layer.run(&host);
    fs::read(layer.dir.join("lower")).unwrap();
    assert_eq!(mounts(), before);

    // After the container's end nothing keeps the mounts, and the layer can go.
    drop(init);
    host.wait("its end", || host.state("c1").as_deref() == Some("exited"));
    host.client().unregister("c1").unwrap();
    for mount in ["merged", "container"] {
        rustix::mount::unmount(layer.dir.join(mount), rustix::mount::UnmountFlags::empty())
            .unwrap();
    }
}
