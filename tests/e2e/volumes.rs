//! Volumes of every kind show unshifted IDs on both sides; what is read-only stays so.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use sysbox_tests::{BUSYBOX, Container, Engine, Feature, TRIXIE, shared};

#[test]
fn named_volumes_keep_files_and_ids() {
    let _world = shared();
    let test = "volumes::named_volumes_keep_files_and_ids";
    if !Engine::current().has(test, &[Feature::NamedVolumes]) {
        return;
    }
    let volume = format!("test-volume-{}", std::process::id());
    let with_volume = || Container::new(BUSYBOX).args(["--volume", &format!("{volume}:/data")]);
    with_volume().sh("echo kept >/data/file && chown 1000:1001 /data/file").ok();
    let show = "stat -c %u:%g /data /data/file && cat /data/file";
    let wanted = "0:0\n1000:1001\nkept";
    // Another container has other host IDs, plain runc has none.
    let ours = with_volume().sh(show).ok();
    let plain = with_volume().runtime("runc").sh(show).ok();
    Engine::current().cmd(["volume", "rm", &volume]).ok();
    assert_eq!(ours, wanted);
    assert_eq!(plain, wanted);
}

#[test]
fn bind_mounts_show_the_hosts_root_as_container_root() {
    let _world = shared();
    let dir = open_dir();
    fs::write(dir.path().join("roots"), "secret").unwrap();
    fs::set_permissions(dir.path().join("roots"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.path().join("users"), "").unwrap();
    chown(dir.path().join("users"), Some(1000), Some(1001)).unwrap();

    let container = Container::sleeping(["--volume", &format!("{}:/data", path(dir.path()))]);
    assert_eq!(container.sh("stat -c %u:%g /data/roots /data/users").ok(), "0:0\n1000:1001");
    assert_eq!(container.sh("cat /data/roots").ok(), "secret");
    container.exec(&["--user", "1000"], ["cat", "/data/roots"]).fails();

    container.sh("echo made >/data/made").ok();
    let made = fs::metadata(dir.path().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    // What the host writes shows at once.
    fs::write(dir.path().join("later"), "later").unwrap();
    assert_eq!(container.sh("cat /data/later").ok(), "later");
}

#[test]
fn a_single_file_can_be_bound() {
    let _world = shared();
    let dir = open_dir();
    let file = dir.path().join("config");
    fs::write(&file, "given").unwrap();
    let container = Container::sleeping(["--volume", &format!("{}:/etc/config:ro", path(&file))]);
    assert_eq!(container.sh("cat /etc/config").ok(), "given");
    container.sh("echo >/etc/config").fails();
    container.sh("rm /etc/config").fails();
    assert_eq!(fs::read_to_string(&file).unwrap(), "given");
}

#[test]
fn a_read_only_bind_cannot_be_made_writable() {
    let _world = shared();
    let dir = open_dir();
    fs::write(dir.path().join("file"), "untouched").unwrap();
    let bind = format!("{}:/data:ro", path(dir.path()));
    // trixie's mount uses the new mount API; busybox' mount is the old one.
    for image in [TRIXIE, BUSYBOX] {
        let container = Container::new(image).args(["--volume", &bind]).start(["sleep", "1000"]);
        container.sh("mkdir -p /mnt /mnt2").ok();
        for attempt in [
            "echo no >/data/file",
            "mount -o remount,rw /data && echo no >/data/file",
            "mount -o remount,bind,rw /data && echo no >/data/file",
            "umount /data",
            "umount -l /data",
            "mount --bind /data /mnt && mount -o remount,bind,rw /mnt && echo no >/mnt/file",
            "mount --rbind / /mnt && mount -o remount,bind,rw /mnt/data && echo no >/mnt/data/file",
            "unshare -m sh -c 'mount -o remount,bind,rw /data && echo no >/data/file'",
            "unshare -m sh -c 'umount -l /data'",
            "unshare -m sh -c 'mount --bind / /mnt2 && cd /mnt2 && pivot_root . mnt && \
             mount -o remount,bind,rw /data && echo no >/data/file'",
            "unshare -U -r -m sh -c 'mount -o remount,bind,rw /data && echo no >/data/file'",
            "echo no >/proc/1/root/data/file",
            "mount --move /data /mnt",
            "chroot /proc/1/root sh -c 'mount -o remount,bind,rw /data && echo no >/data/file'",
        ] {
            let output = container.sh(attempt);
            assert_eq!(
                fs::read_to_string(dir.path().join("file")).unwrap(),
                "untouched",
                "{image}, after: {output}"
            );
            output.fails();
        }
        assert_eq!(container.sh("cat /data/file").ok(), "untouched");
    }
}

#[test]
fn tmpfs_has_its_size() {
    let _world = shared();
    // Podman knows no owner of a tmpfs.
    let podman = Engine::current() == Engine::Podman;
    let (uid, owner) = if podman { ("0", "") } else { ("1000", ",uid=1000") };
    let options = format!("/scratch:size=1m,mode=1770{owner}");
    let container = Container::sleeping(["--tmpfs", &options]);
    assert_eq!(container.sh("stat -f -c %T /scratch").ok(), "tmpfs");
    assert_eq!(container.sh("stat -c '%u %a' /scratch").ok(), format!("{uid} 1770"));
    container.sh("head -c 512k /dev/zero >/scratch/fits").ok();
    container.sh("head -c 2m /dev/zero >/scratch/big").fails();
}

#[test]
fn a_read_only_root_stays_so() {
    let _world = shared();
    let container = Container::sleeping(["--read-only", "--tmpfs", "/tmp"]);
    for attempt in [
        "touch /file",
        "mount -o remount,rw / && touch /file",
        "mount -o remount,bind,rw / && touch /file",
        "mount --bind / /tmp && mount -o remount,bind,rw /tmp && touch /tmp/file",
        "unshare -m sh -c 'mount -o remount,bind,rw / && touch /file'",
    ] {
        container.sh(attempt).fails();
    }
    assert!(!container.upper_dir().join("file").exists());
    container.sh("echo fine >/tmp/file && cat /proc/meminfo >/dev/null").ok();
}

/// A directory that other IDs may enter: the container's are others.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
