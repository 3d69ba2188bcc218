use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Dev, XattrFlags, getxattr, makedev, setxattr};

use super::*;

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn copy(source: &Path, target: &Path) -> io::Result<u64> {
    tree(open(source).as_fd(), open(target).as_fd(), &Originals::none())
}

fn dirs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    // Not on a tmpfs where /tmp is one: its files have no holes to find and no trusted attributes.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    (dir, a, b)
}

fn node(path: &Path, kind: FileType, dev: Dev) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), dev).unwrap();
}

/// What must be equal of two objects.
fn facts(path: &Path) -> (u32, u32, u32, u64, i64, i64, u64) {
    let m = fs::symlink_metadata(path).unwrap();
    let size = if m.is_dir() { 0 } else { m.size() };
    (m.mode(), m.uid(), m.gid(), m.rdev(), m.mtime(), m.mtime_nsec(), size)
}

/// Needs root: device nodes, owners and trusted attributes.
#[test]
fn everything_comes_over_unchanged() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_dir, a, b) = dirs();
    fs::create_dir_all(a.join("sub/deep")).unwrap();
    fs::write(a.join("sub/file"), "contents").unwrap();
    fs::hard_link(a.join("sub/file"), a.join("sub/deep/link")).unwrap();
    symlink("/absolute/target", a.join("symlink")).unwrap();
    node(&a.join("whiteout"), FileType::CharacterDevice, makedev(0, 0));
    node(&a.join("null"), FileType::CharacterDevice, makedev(1, 3));
    node(&a.join("fifo"), FileType::Fifo, 0);
    node(&a.join("socket"), FileType::Socket, 0);
    fs::write(a.join("suid"), "x").unwrap();
    for (name, id) in [("suid", 1234), ("symlink", 5), ("sub/deep", 70_000), ("fifo", 9)] {
        std::os::unix::fs::lchown(a.join(name), Some(id), Some(id + 1)).unwrap();
    }
    fs::set_permissions(a.join("suid"), PermissionsExt::from_mode(0o6755)).unwrap();
    fs::set_permissions(a.join("sub"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::set_permissions(&a, PermissionsExt::from_mode(0o710)).unwrap();
    for (name, attribute) in [("sub", c"trusted.overlay.opaque"), ("suid", c"user.note")] {
        setxattr(a.join(name), attribute, b"y", XattrFlags::empty()).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(20));

    copy(&a, &b).unwrap();
    for name in [
        "",
        "sub",
        "sub/deep",
        "sub/file",
        "sub/deep/link",
        "symlink",
        "whiteout",
        "null",
        "fifo",
        "socket",
        "suid",
    ] {
        assert_eq!(facts(&a.join(name)), facts(&b.join(name)), "{name}");
    }
    assert_eq!(fs::read_link(b.join("symlink")).unwrap(), Path::new("/absolute/target"));
    assert_eq!(fs::read(b.join("sub/deep/link")).unwrap(), b"contents");
    let inode = |name| fs::metadata(b.join(name)).unwrap().ino();
    assert_eq!(inode("sub/file"), inode("sub/deep/link"));
    let mut value = [0; 8];
    assert_eq!(getxattr(b.join("sub"), c"trusted.overlay.opaque", &mut value).unwrap(), 1);
    assert_eq!(getxattr(b.join("suid"), c"user.note", &mut value).unwrap(), 1);
}

#[test]
fn holes_stay_holes() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_dir, a, b) = dirs();
    let file = fs::File::create(a.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"end", 64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"middle", 8 << 20).unwrap();
    file.set_len(100 << 20).unwrap();
    copy(&a, &b).unwrap();
    let (old, new) =
        (fs::metadata(a.join("sparse")).unwrap(), fs::metadata(b.join("sparse")).unwrap());
    assert_eq!(new.len(), old.len());
    assert!(new.blocks() * 512 < 1 << 20, "{} blocks", new.blocks());
    assert!(fs::read(a.join("sparse")).unwrap() == fs::read(b.join("sparse")).unwrap());
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_dir, a, b) = dirs();
    let mut here = open(&a);
    for _ in 0..=MAX_DEPTH {
        mkdirat(&here, "d", Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    assert!(copy(&a, &b).unwrap_err().to_string().contains("nested"));
}
