//! Kernels older than this machine's, as far as they can be played: the runtime does without the
//! interfaces that `SYSBOX_WITHOUT` names. The kernels themselves boot in `tests/machine`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sysbox_tests::{BUSYBOX, Cmd, World, shared};

/// A bundle whose root file system is an overlay over the busybox image.
struct Bundle {
    dir: tempfile::TempDir,
}

impl Bundle {
    fn new(script: &str) -> Self {
        // Not on a tmpfs, which cannot be a layer that keeps extended attributes on every kernel.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["lower", "upper", "work", "rootfs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let id = Cmd::docker(["create", BUSYBOX, "true"]).ok();
        Cmd::docker(["export", "--output", &path("image.tar"), id.trim()]).ok();
        Cmd::docker(["rm", id.trim()]).ok();
        Cmd::new("tar", ["-xf", &path("image.tar"), "-C", &path("lower")]).ok();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            path("lower"),
            path("upper"),
            path("work")
        );
        Cmd::new("mount", ["-t", "overlay", "overlay", "-o", &layers, &path("rootfs")]).ok();
        Cmd::new("runc", ["spec", "--bundle", &path("")]).ok();
        let text = fs::read_to_string(path("config.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["sh", "-c", script]);
        config["root"]["readonly"] = false.into();
        fs::write(path("config.json"), config.to_string()).unwrap();
        Self { dir }
    }

    fn run(&self, without: &str) -> sysbox_tests::Output {
        let root = self.dir.path().join("state");
        let runtime = World::current().runtime();
        let id = format!("old-kernel-{}", self.dir.path().file_name().unwrap().to_str().unwrap());
        let id = id.replace("..", "-");
        let output = Cmd::new(runtime.to_str().unwrap(), ["--root", root.to_str().unwrap()])
            .args(["run", "--bundle", self.dir.path().to_str().unwrap(), &id])
            .env("SYSBOX_WITHOUT", without)
            .run();
        let left: Vec<_> = fs::read_dir(&root).into_iter().flatten().collect();
        assert!(left.is_empty(), "state stayed: {left:?}");
        output
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let rootfs = self.dir.path().join("rootfs");
        Cmd::new("umount", [rootfs.to_str().unwrap()]).run();
    }
}

#[test]
fn a_kernel_without_id_mapped_mounts_is_explained() {
    let _world = shared();
    let message = Bundle::new("true").run("idmapped-mounts").fails();
    assert!(message.contains("no ID-mapped mounts; Linux 5.19 or newer is needed"), "{message}");
}

#[test]
fn the_ways_of_older_kernels_work() {
    let _world = shared();
    let script = "id -u; touch /made && stat -c %u /made; touch /dev/shm/made && echo shm; \
                  cat /proc/self/comm; grep -c fuse.sysbox /proc/self/mountinfo >/dev/null && echo files";
    for without in
        ["", "proc-pidns", "overlay-layer-fds", "proc-pidns,overlay-layer-fds,idmapped-tmpfs"]
    {
        let bundle = Bundle::new(script);
        assert_eq!(bundle.run(without).ok(), "0\n0\nshm\ncat\nfiles", "without {without:?}");
        let made = fs::metadata(bundle.dir.path().join("upper/made")).unwrap();
        assert_eq!(made.uid(), 0, "ids on disk are not shifted");
        assert!(!Path::new(&bundle.dir.path().join("work-sysbox")).exists());
    }
}
