//! Each container has host IDs of its own, and files on disk keep the IDs that they have inside.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sysbox_tests::{BUSYBOX, Cmd, Container, IdRange, Running, TRIXIE, id_range, shared};

#[test]
fn ranges_are_exclusive() {
    let _world = shared();
    let containers: Vec<Running> = (0..3).map(|_| Container::sleeping::<&str>([])).collect();
    for map in ["uid_map", "gid_map"] {
        let ranges: Vec<IdRange> = containers.iter().map(|c| id_range(c.pid(), map)).collect();
        for (index, range) in ranges.iter().enumerate() {
            assert!(range.start > 0, "container root must not be the host's root: {range:?}");
            assert!(range.size >= 65536, "a system wants all 16-bit IDs: {range:?}");
            for other in &ranges[index + 1..] {
                assert!(!range.overlaps(*other), "{range:?} overlaps {other:?}");
            }
        }
    }
    // What the kernel says outside is what is seen inside.
    let inside = containers[0].sh("cat /proc/self/uid_map").ok();
    let outside = fs::read_to_string(format!("/proc/{}/uid_map", containers[0].pid())).unwrap();
    assert_eq!(inside.trim(), outside.trim());
}

#[test]
fn more_ids_are_for_user_namespaces_inside() {
    let _world = shared();
    let sizes = [200_000, 1_000_000];
    let containers =
        sizes.map(|size| Container::sleeping(["--env", &format!("SYSBOX_ID_RANGE_SIZE={size}")]));
    let ranges = [0, 1].map(|n| id_range(containers[n].pid(), "uid_map"));
    assert!(!ranges[0].overlaps(ranges[1]), "{ranges:?}");
    for ((container, range), wanted) in containers.iter().zip(ranges).zip(sizes) {
        assert!(range.size >= wanted, "{range:?}");
        let last = range.size - 1;
        let script = format!("touch /file && chown {last}:{last} /file && stat -c %u:%g /file");
        assert_eq!(container.sh(&script).ok(), format!("{last}:{last}"));
    }
    assert_eq!(containers[0].sh("echo $SYSBOX_ID_RANGE_SIZE").ok(), "");
}

/// Docker in the container gives its containers ids of their own again.
#[test]
fn an_inner_engine_can_remap_ids() {
    let _world = shared();
    let system = Container::booted(TRIXIE, ["--env", "SYSBOX_ID_RANGE_SIZE=196608"]);
    let script = format!(
        "useradd --system dockremap && for f in subuid subgid; do echo dockremap:65536:65536 >/etc/$f; done \
         && mkdir -p /etc/docker && echo '{{\"userns-remap\": \"default\"}}' >/etc/docker/daemon.json \
         && systemctl restart docker && docker load --quiet --input /opt/busybox.tar \
         && docker run --rm {BUSYBOX} cat /proc/self/uid_map"
    );
    let printed = system.sh(&script).ok();
    let map: Vec<_> = printed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(map, ["0", "65536", "65536"], "{printed}");
}

#[test]
fn one_containers_ids_open_nothing_of_another() {
    let _world = shared();
    let victim = Container::sleeping(["--volume", "/data"]);
    let other = Container::sleeping::<&str>([]);
    victim.sh("umask 077; echo secret >/root/secret; echo secret >/data/secret").ok();
    let intruder = id_range(other.pid(), "uid_map").start.to_string();
    let pid = victim.pid();
    let on_disk = victim.upper_dir().join("root/secret");
    let volume = victim.volume_dir().join("secret");
    assert!(on_disk.exists() && volume.exists(), "the secrets lie where the test looks");

    for path in [
        PathBuf::from(format!("/proc/{pid}/root/root/secret")),
        PathBuf::from(format!("/proc/{pid}/environ")),
        PathBuf::from(format!("/proc/{pid}/root/proc/meminfo")),
        on_disk,
        volume,
    ] {
        let as_intruder = ["--reuid", &intruder, "--regid", &intruder, "--clear-groups", "cat"];
        let output = Cmd::new("setpriv", as_intruder).args([path.to_str().unwrap()]).run();
        let printed = output.fails();
        assert!(printed.contains("Permission denied"), "{}: {printed}", path.display());
    }
    // Signals neither.
    let kill = ["--reuid", &intruder, "--regid", &intruder, "--clear-groups", "kill", "-0"];
    Cmd::new("setpriv", kill).args([pid.to_string()]).run().fails();
}

#[test]
fn files_on_disk_keep_unshifted_ids() {
    let _world = shared();
    let container = Container::sleeping(["--volume", "/data"]);
    let (upper, volume) = (container.upper_dir(), container.volume_dir());
    container.sh("touch /as-root /data/as-root").ok();
    container.sh("touch /as-user /data/as-user && chown 1000:1001 /as-user /data/as-user").ok();
    for dir in [upper, volume] {
        assert_eq!(owner(&dir.join("as-root")), (0, 0));
        assert_eq!(owner(&dir.join("as-user")), (1000, 1001));
    }
    assert_eq!(container.sh("stat -c %u:%g /as-root /as-user").ok(), "0:0\n1000:1001");
}

#[test]
fn starting_changes_no_file_of_the_image() {
    let _world = shared();
    // One container makes the engine unpack whatever it unpacks on first use.
    Container::new(BUSYBOX).sh("true").ok();
    let container = Container::sleeping::<&str>([]);
    let layers = container.lower_dirs();
    let lowest = PathBuf::from(layers.split(':').next_back().unwrap());
    let before = metadata_of_tree(&lowest);
    assert!(before.len() > 100, "the image's files are there: {}", lowest.display());

    let others: Vec<Running> = (0..2).map(|_| Container::sleeping::<&str>([])).collect();
    drop(others);
    assert_eq!(metadata_of_tree(&lowest), before);
    // Nor was the image copied: the container's own layer holds only what it changed.
    let own = metadata_of_tree(&container.upper_dir()).len();
    assert!(own < 40, "{own} files in the layer of a container that wrote nothing");
}

#[test]
fn a_big_image_starts_without_copying_it() {
    let _world = shared();
    let container = Container::new(TRIXIE).start(["sleep", "1000"]);
    let size = Cmd::new("du", ["-sm", container.upper_dir().to_str().unwrap()]).ok();
    let megabytes: u32 = size.split_whitespace().next().unwrap().parse().unwrap();
    assert!(megabytes < 20, "the container's own layer has {megabytes} MB");
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata =
        fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.uid(), metadata.gid())
}

/// Owner and time of the last change of each file, the latter being what no chown can hide.
fn metadata_of_tree(top: &Path) -> Vec<(PathBuf, u32, u32, i64, i64)> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let (uid, gid) = (metadata.uid(), metadata.gid());
        found.push((path, uid, gid, metadata.ctime(), metadata.ctime_nsec()));
    }
    found.sort();
    found
}
