//! Root file systems of every kind, as bundles for the runtime itself: what an engine would have mounted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sysbox_tests::{BUSYBOX, Cmd, Output, World, cannot_run, shared, sysbox, wait_until};

/// A directory below which the test mounts things; all of it goes with this value.
struct Place {
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        Cmd::new("chmod", ["711", text(dir.path())]).ok();
        Self { dir, mounted: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn mount(&mut self, args: &[&str], at: &Path) {
        Cmd::new("mount", args).args([text(at)]).ok();
        self.mounted.push(at.to_owned());
    }

    /// A file system that a program serves: a FUSE one.
    fn mount_fuse(&mut self, at: &Path) {
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| self.make(name));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        Cmd::new("fuse-overlayfs", ["-o", &layers, text(at)]).ok();
        self.mounted.push(at.to_owned());
    }

    /// A file system of this type and size in MB, in a file.
    fn file_system(&mut self, kind: &str, megabytes: u64) -> PathBuf {
        self.file_system_with(kind, megabytes, "loop").unwrap()
    }

    /// The same with options of mount(8); an error if the kernel does not know them.
    fn file_system_with(
        &mut self,
        kind: &str,
        megabytes: u64,
        options: &str,
    ) -> Result<PathBuf, String> {
        let file = self.path(&format!("{kind}.img"));
        fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        let quiet = if kind == "xfs" { "-f" } else { "-q" };
        Cmd::new(&format!("mkfs.{kind}"), [quiet, text(&file)]).ok();
        let at = self.make(kind);
        let mounted = Cmd::new("mount", ["-o", options, text(&file), text(&at)]).run();
        if !mounted.success() {
            return Err(mounted.stderr);
        }
        self.mounted.push(at.clone());
        Cmd::new("chmod", ["711", text(&at)]).ok();
        Ok(at)
    }

    /// What an engine's overlay driver mounts: `image` is the layer below.
    fn overlay(&mut self, image: &Path, container: &Path, options: &str) -> PathBuf {
        let [upper, work, merged] = ["diff", "work", "merged"].map(|name| container.join(name));
        for dir in [&upper, &work, &merged] {
            fs::create_dir_all(dir).unwrap();
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}{options}",
            image.display(),
            upper.display(),
            work.display()
        );
        self.mount(&["-t", "overlay", "overlay", "-o", &layers], &merged);
        merged
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mount in self.mounted.iter().rev() {
            Cmd::new("umount", ["--lazy", text(mount)]).run();
        }
    }
}

/// The files of the busybox image.
fn unpack(into: &Path) {
    let name = format!("files-{}-{}", std::process::id(), next());
    Cmd::docker(["create", "--name", &name, BUSYBOX]).ok();
    let script = format!("docker export {name} | tar -x -C '{}'", into.display());
    let unpacked = Cmd::new("sh", ["-c", &script]).run();
    Cmd::docker(["rm", &name]).ok();
    unpacked.ok();
}

/// Runs a script in a container with this root.
fn run(rootfs: &Path, script: &str) -> Output {
    run_with(rootfs, &[], &[], script)
}

/// The same with bind mounts, as source and destination, and with variables.
fn run_with(rootfs: &Path, binds: &[(&Path, &str)], env: &[&str], script: &str) -> Output {
    run_spec(rootfs, script, |spec| {
        for (source, destination) in binds {
            spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({
                "destination": destination, "source": source, "type": "bind", "options": ["rbind"]
            }));
        }
        let all = spec["process"]["env"].as_array_mut().unwrap();
        all.extend(env.iter().map(|variable| (*variable).into()));
    })
}

/// The same with any change of the spec.
fn run_spec(rootfs: &Path, script: &str, change: impl FnOnce(&mut serde_json::Value)) -> Output {
    let bundle = tempfile::tempdir().unwrap();
    let bundle_path = text(bundle.path());
    Cmd::new("runc", ["spec", "--bundle", bundle_path]).ok();
    let config = bundle.path().join("config.json");
    let mut spec: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(["sh", "-c", script]);
    spec["root"] = serde_json::json!({ "path": rootfs, "readonly": false });
    change(&mut spec);
    let cgroup =
        format!("{}/fs-{}-{}", World::current().cgroup_parent(), std::process::id(), next());
    spec["linux"]["cgroupsPath"] = cgroup.into();
    fs::write(&config, spec.to_string()).unwrap();
    let runtime = World::current().runtime();
    let id = format!("fs-{}-{}", std::process::id(), next());
    Cmd::new(text(&runtime), ["run", "--bundle", bundle_path, &id]).run()
}

fn next() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Changes of every kind, and what must then be there with the ids that were given inside.
const CHANGES: &str = "id -u && echo new >/etc/new && chown 1000:1001 /etc/new && \
    ln /etc/new /etc/hard && mv /home /home2 && echo line >>/etc/passwd && rm /etc/group && \
    chmod 4755 /bin/busybox && mkdir -p /a/b && stat -c %u:%g /etc/new /bin";

fn works(what: &str, rootfs: &Path) {
    let output = run(rootfs, CHANGES);
    assert_eq!(output.ok(), "0\n1000:1001\n0:0", "{what}");
    // The engine's mount of it may have remembered what was not there.
    let _ = Cmd::new("mount", ["-o", "remount", text(rootfs)]).run();
    let new = fs::metadata(rootfs.join("etc/new")).unwrap();
    assert_eq!((new.uid(), new.gid(), new.nlink()), (1000, 1001, 2), "{what}");
    assert!(rootfs.join("home2").is_dir() && !rootfs.join("home").exists(), "{what}");
    assert!(!rootfs.join("etc/group").exists(), "{what}");
    assert_eq!(fs::metadata(rootfs.join("bin/busybox")).unwrap().mode() & 0o7777, 0o4755, "{what}");
    // And once more, over what is there now.
    let script = "cat /etc/hard; stat -c %u:%g /etc/hard; ls -d /home2 /etc/group 2>/dev/null";
    let again = run(rootfs, script).to_string();
    assert!(again.contains("new\n1000:1001\n/home2"), "{what}: {again}");
}

#[test]
fn directories_and_overlays_on_every_file_system() {
    let _world = shared();
    let mut place = Place::new();
    let tmpfs = place.make("tmpfs");
    place.mount(&["-t", "tmpfs", "-o", "mode=711", "tmpfs"], &tmpfs);
    let own = place.make("own");
    let stores = [
        ("the machine's", own),
        ("tmpfs", tmpfs),
        ("xfs", place.file_system("xfs", 320)),
        ("btrfs", place.file_system("btrfs", 256)),
    ];
    for (kind, store) in stores {
        let image = store.join("image");
        fs::create_dir(&image).unwrap();
        unpack(&image);
        if kind == "tmpfs" && !tmpfs_can_be_id_mapped() {
            let refused = run(&image, "true").fails();
            assert!(refused.contains("cannot be ID-mapped by this kernel"), "{refused}");
            continue;
        }
        for options in ["", ",metacopy=on,redirect_dir=on", ",redirect_dir=on", ",volatile"] {
            let container = store.join(format!("container-{}", next()));
            let merged = place.overlay(&image, &container, options);
            works(&format!("overlay{options} on {kind}"), &merged);
        }
        works(&format!("directory on {kind}"), &image);
    }
}

#[test]
fn an_overlay_that_can_not_be_shared_is_refused_with_the_reason() {
    let _world = shared();
    let mut place = Place::new();
    let image = place.make("image");
    unpack(&image);
    let merged = place.overlay(&image, &place.path("container"), ",index=on");
    let message = run(&merged, "true").fails();
    assert!(message.contains("index=off"), "{message}");
}

/// Ten containers from an image with inner images take the space of one, where the file system can
/// share blocks.
#[test]
fn inner_images_are_shared_where_the_file_system_can() {
    let _world = shared();
    let mut place = Place::new();
    for kind in ["xfs", "btrfs"] {
        let store = place.file_system(kind, 640);
        let image = store.join("image");
        fs::create_dir(&image).unwrap();
        unpack(&image);
        let layer = image.join("var/lib/docker/overlay2/x/diff");
        fs::create_dir_all(&layer).unwrap();
        let big = layer.join("big");
        Cmd::new("dd", ["if=/dev/urandom", &format!("of={}", big.display()), "bs=1M", "count=64"])
            .ok();
        let sum = Cmd::new("md5sum", [text(&big)]).ok();
        let before = used(&store);
        for _ in 0..10 {
            let merged = place.overlay(&image, &store.join(format!("container-{}", next())), "");
            let inside = run(
                &merged,
                "stat -f -c %T /var/lib/docker; md5sum /var/lib/docker/overlay2/x/diff/big",
            );
            let inside = inside.ok();
            assert!(inside.contains(&sum[..32]) && !inside.contains("overlayfs"), "{inside}");
        }
        let more = used(&store).saturating_sub(before) >> 20;
        assert!(more < 32, "ten containers with 64 MB each took {more} MB on {kind}");
    }
}

/// Bytes that are in use on the file system of a directory.
fn used(dir: &Path) -> u64 {
    Cmd::new("sync", ["--file-system", text(dir)]).ok();
    let printed = Cmd::new("stat", ["-f", "-c", "%b %f %S", text(dir)]).ok();
    let numbers: Vec<u64> = printed.split_whitespace().map(|n| n.parse().unwrap()).collect();
    (numbers[0] - numbers[1]) * numbers[2]
}

#[test]
fn a_full_disk_is_told_inside_and_hurts_nothing() {
    let _world = shared();
    let mut place = Place::new();
    let store = place.file_system("ext4", 32);
    let image = place.make("image");
    unpack(&image);
    fs::create_dir_all(image.join("var/lib/docker")).unwrap();
    let merged = place.overlay(&image, &store.join("container"), "");
    let script = "echo before >/etc/before; dd if=/dev/zero of=/var/lib/docker/big bs=1M count=99; \
                  dd if=/dev/zero of=/big bs=1M count=99; df / | tail -1; cat /etc/before";
    let output = run(&merged, script);
    let printed = output.to_string();
    assert_eq!(printed.matches("No space left on device").count(), 2, "{printed}");
    assert!(printed.contains("before"), "{printed}");
    // A start with no room fails with that reason or works; with room it works again.
    let full = run(&merged, "echo started").to_string();
    assert!(full.contains("started") || full.contains("No space left"), "{full}");
    fs::remove_file(store.join("container/diff/big")).unwrap();
    let again = run(&merged, "cat /etc/before; rm /var/lib/docker/big; ls /var/lib/docker");
    assert_eq!(again.ok(), "before");
}

/// `docker run --storage-opt size=` is a project quota on the container's layer.
#[test]
fn a_quota_of_the_layer_holds_for_the_inner_store_too() {
    let _world = shared();
    let mut place = Place::new();
    let store = match place.file_system_with("xfs", 320, "loop,prjquota") {
        Ok(store) => store,
        Err(why) => {
            let test = "filesystems::a_quota_of_the_layer_holds_for_the_inner_store_too";
            let why = why.lines().next().unwrap_or_default();
            return cannot_run(test, &format!("this kernel has no project quotas on xfs: {why}"));
        }
    };
    let image = store.join("image");
    fs::create_dir(&image).unwrap();
    unpack(&image);
    fs::create_dir_all(image.join("var/lib/docker")).unwrap();
    let container = store.join("container");
    fs::create_dir(&container).unwrap();
    let project = format!("project -s -p {} 7", container.display());
    let commands = ["-x", "-c", &project, "-c", "limit -p bhard=20m 7", text(&store)];
    Cmd::new("xfs_quota", commands).ok();
    let merged = place.overlay(&image, &container, "");
    let script = "head -c 8m /dev/zero >/eight && head -c 8m /dev/zero >/var/lib/docker/eight && \
                  echo fits; dd if=/dev/zero of=/var/lib/docker/more bs=1M count=8";
    let printed = run(&merged, script).to_string();
    assert!(printed.contains("fits") && printed.contains("No space left"), "{printed}");
}

#[test]
fn a_volume_that_can_not_be_id_mapped_is_told_or_refused() {
    let _world = shared();
    let mut place = Place::new();
    let image = place.make("image");
    unpack(&image);
    let volumes =
        ["ext4", "tmpfs", "ramfs", "fuse"].map(|kind| place.make(&format!("volume-{kind}")));
    for (kind, volume) in ["tmpfs", "ramfs"].iter().zip(&volumes[1..]) {
        place.mount(&["-t", kind, kind], volume);
    }
    place.mount_fuse(&volumes[3]);
    for volume in &volumes {
        fs::write(volume.join("file"), "text").unwrap();
        Cmd::new("chmod", ["755", text(volume)]).ok();
    }
    let inside = ["/ext4", "/tmpfs", "/ramfs", "/fuse"];
    let owners = "stat -c %u /ext4/file /tmpfs/file /ramfs/file /fuse/file | xargs; \
        cat /ramfs/file /fuse/file";
    let binds: Vec<_> = volumes.iter().map(PathBuf::as_path).zip(inside).collect();
    let output = run_with(&image, &binds, &[], owners);
    let (printed, told) = (output.stdout.clone(), output.stderr.clone());
    let tmpfs_can = tmpfs_can_be_id_mapped();
    let tmpfs_owner = if tmpfs_can { 0 } else { 65534 };
    assert_eq!(printed.trim(), format!("0 {tmpfs_owner} 65534 65534\ntexttext"), "{told}");
    for (at, kind) in [("/ramfs", "(ramfs)"), ("/fuse", "(fuse")] {
        let line = told.lines().find(|line| line.contains(at) && line.contains(kind));
        assert!(line.is_some_and(|line| line.contains("cannot be ID-mapped")), "{told}");
    }
    assert_eq!(told.contains("/tmpfs"), !tmpfs_can, "{told}");
    // An engine keeps that where nobody looks.
    let events = sysbox(&["events", "--no-follow"]).ok();
    let warned = |text: &str| events.lines().any(|l| l.contains(" warned ") && l.contains(text));
    let source = |volume: &Path| format!("the source {} (", text(volume));
    assert!(warned(&source(&volumes[2])) && warned(&source(&volumes[3])), "{events}");
    assert_eq!(warned(&source(&volumes[1])), !tmpfs_can, "{events}");

    let strict = "SYSBOX_FSUID_MAP_FAIL_ON_ERROR=TRUE";
    for (bind, kind) in binds[2..].iter().zip(["(ramfs)", "(fuse"]) {
        let refused = run_with(&image, &[*bind], &[strict], "true").fails();
        assert!(refused.contains(kind) && refused.contains("cannot be ID-mapped"), "{refused}");
    }
    let with_tmpfs = run_with(&image, &binds[..2], &[strict], "stat -c %u /tmpfs/file");
    if tmpfs_can {
        assert_eq!(with_tmpfs.ok(), "0");
    } else {
        assert!(with_tmpfs.fails().contains("(tmpfs) cannot be ID-mapped"));
    }
    // What is left out on purpose is no error.
    let skip = if tmpfs_can { "/ext4,/ramfs,/fuse" } else { "/ext4,/tmpfs,/ramfs,/fuse" };
    let skip = format!("SYSBOX_SKIP_UID_SHIFT={skip}");
    let skipped = run_with(&image, &binds, &[strict, &skip], owners);
    assert_eq!(skipped.ok(), format!("65534 {tmpfs_owner} 65534 65534\ntexttext"));
}

/// From Linux 6.3 on.
fn tmpfs_can_be_id_mapped() -> bool {
    let release = Cmd::new("uname", ["-r"]).ok();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

/// As Docker's `userns-remap` has it: the files on disk belong to the container's ids already, and all
/// its containers have the same.
#[test]
fn a_root_that_the_engine_has_shifted_is_not_shifted_again() {
    let _world = shared();
    let mut place = Place::new();
    let image = place.make("image");
    unpack(&image);
    fs::create_dir_all(image.join("var/lib/docker")).unwrap();
    fs::write(image.join("var/lib/docker/baked"), "baked").unwrap();
    let first = 3_900_000_000_u32;
    Cmd::new("chown", ["-R", "--no-dereference", &format!("{first}:{first}"), text(&image)]).ok();
    let container = place.make("container");
    // The engine makes the container's own layer with these ids, too.
    let upper = place.make("container/diff");
    Cmd::new("chown", [&format!("{first}:{first}"), text(&upper)]).ok();
    let merged = place.overlay(&image, &container, "");
    let script = "cat /var/lib/docker/baked; touch /own /var/lib/docker/own; \
                  stat -c %u /own /bin /var/lib/docker /var/lib/docker/baked /var/lib/docker/own | xargs";
    for _ in 0..2 {
        let output = run_spec(&merged, script, |spec| {
            let map = serde_json::json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map;
            let user = serde_json::json!({ "type": "user" });
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(user);
        });
        assert_eq!(output.ok(), "baked0 0 0 0 0");
    }
    for file in ["own", "var/lib/docker/own"] {
        assert_eq!(fs::metadata(container.join("diff").join(file)).unwrap().uid(), first, "{file}");
    }
}

/// An engine of the test's own, whose storage driver is not the world's.
struct Engine {
    dir: tempfile::TempDir,
    process: std::process::Child,
}

impl Engine {
    fn start(driver: &str) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        Cmd::new("chmod", ["711", text(dir.path())]).ok();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("config"), "{}").unwrap();
        let world = World::current();
        let containerd = world.data_root().parent().unwrap().join("run/containerd.sock");
        // In a network of its own: an engine without a bridge removes docker0.
        let process = std::process::Command::new("unshare")
            .args(["--net", "dockerd", "--config-file", &at("config")])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--storage-driver", driver, "--containerd-namespace", driver])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg(format!("--containerd={}", containerd.display()))
            .arg(format!("--host=unix://{}", at("sock")))
            .arg(format!("--data-root={}", at("root")))
            .arg(format!("--exec-root={}", at("exec")))
            .arg(format!("--pidfile={}", at("pid")))
            .arg(format!("--cgroup-parent={}", world.cgroup_parent()))
            .arg(format!("--add-runtime=sysbox={}", world.runtime().display()))
            .stdout(fs::File::create(at("log")).unwrap())
            .stderr(fs::File::create(at("errors")).unwrap())
            .spawn()
            .unwrap();
        let engine = Self { dir, process };
        wait_until("the engine answers", Duration::from_secs(30), || {
            let info = engine.docker(["info", "--format", "{{.Driver}}"]);
            if info.success() { Ok(()) } else { Err(info.to_string()) }
        });
        engine
    }

    fn docker<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let socket = format!("unix://{}", self.dir.path().join("sock").display());
        Cmd::docker(args).env("DOCKER_HOST", &socket).run()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        Cmd::new("kill", [self.process.id().to_string()]).run();
        let _ = self.process.wait();
    }
}

#[test]
fn an_engine_that_copies_layers_keeps_and_commits_the_store() {
    let _world = shared();
    let engine = Engine::start("vfs");
    let load = format!(
        "docker save {BUSYBOX} | docker --host unix://{} load",
        engine.dir.path().join("sock").display()
    );
    Cmd::new("sh", ["-c", &load]).ok();
    let run = |name: &str, image: &str, script: &str| {
        let name = ["--name", name, "--runtime", "sysbox", "--network", "none"];
        let command = [image, "sh", "-c", script];
        engine.docker(["run"].iter().chain(&name).chain(&command)).ok()
    };
    run(
        "template",
        BUSYBOX,
        "mkdir -p /var/lib/docker/overlay2/x && chown 7:8 /var/lib/docker/overlay2/x",
    );
    engine.docker(["commit", "template", "with-store"]).ok();
    let show = "stat -c %u:%g /var/lib/docker/overlay2/x && stat -f -c %T /var/lib/docker";
    let shown = run("second", "with-store", &format!("echo kept >/var/lib/docker/file; {show}"));
    assert!(shown.starts_with("7:8\n") && !shown.contains("overlay"), "{shown}");
    engine.docker(["commit", "second", "next"]).ok();
    assert_eq!(run("third", "next", "cat /var/lib/docker/file"), "kept");
    engine.docker(["rm", "--force", "template", "second", "third"]).ok();
}
