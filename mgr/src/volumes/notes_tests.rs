//! What an archive loses comes back; what a hostile image says does nothing outside of the store.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

use rustix::fs::{CWD, getxattr};

use super::*;

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Directories on a real file system, and whether this is root, who may set all of this.
fn dirs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    (dir, a, b)
}

fn get(path: &Path, name: &CStr) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    getxattr(path, name, &mut value).ok().map(|length| value[..length].to_vec())
}

/// An ACL: user 1000 may read, acl(5) in the kernel's form.
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

#[test]
fn what_tar_loses_comes_back() {
    let (dir, store, from_image) = dirs();
    fs::create_dir_all(store.join("overlay2/x/diff/opaque")).unwrap();
    let opaque = |top: &Path| top.join("overlay2/x/diff/opaque");
    let file = |top: &Path| top.join("overlay2/x/diff/file");
    let gone = |top: &Path| top.join("overlay2/x/diff/gone");
    setxattr(opaque(&store), c"user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    fs::write(file(&store), "text").unwrap();
    setxattr(file(&store), c"system.posix_acl_access", ACL, XattrFlags::empty()).unwrap();
    mknodat(CWD, gone(&store), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let sparse = fs::File::create(store.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"end", 20 << 20).unwrap();

    write(open(&store).as_fd()).unwrap();
    // An archive without attributes, with whiteouts that are taken for the outer engine's own.
    let tar = format!(
        "tar -C {} --exclude ./overlay2/x/diff/gone -cf - . | tar -C {} -xf -",
        store.display(),
        from_image.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &tar]).status().unwrap().success());
    assert_eq!(get(&opaque(&from_image), c"user.overlay.opaque"), None);
    let blocks = || fs::metadata(from_image.join("sparse")).unwrap().blocks();
    assert!(blocks() > 30_000, "{}", blocks());

    apply(open(&from_image).as_fd()).unwrap();
    assert_eq!(get(&opaque(&from_image), c"user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(get(&file(&from_image), c"system.posix_acl_access").as_deref(), Some(ACL));
    let whiteout = fs::symlink_metadata(gone(&from_image)).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert!(blocks() < 100, "{}", blocks());
    assert_eq!(fs::metadata(from_image.join("sparse")).unwrap().len(), (20 << 20) + 3);
    assert!(!from_image.join(FILE).exists());

    // A store of which nothing is lost has no notes, not even old ones.
    fs::remove_dir_all(store.join("overlay2")).unwrap();
    fs::remove_file(store.join("sparse")).unwrap();
    write(open(&store).as_fd()).unwrap();
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    drop(dir);
}

#[test]
fn hostile_notes_stay_in_the_store() {
    let (_dir, outside, store) = dirs();
    fs::write(outside.join("victim"), "x").unwrap();
    symlink(&outside, store.join("link")).unwrap();
    symlink(outside.join("victim"), store.join("file")).unwrap();
    let attribute = |name: &str| Attribute { name: name.into(), value: b"y".to_vec() };
    let note = |path: &str, whiteout: bool, name: &str| Note {
        path: path.into(),
        whiteout,
        attributes: vec![attribute(name)],
        holes: vec![0, u64::MAX],
    };
    fs::write(store.join("own"), "own").unwrap();
    let notes = [
        note("link/victim", false, "user.x"),
        note("file", false, "user.x"),
        note("../a/victim", false, "user.x"),
        note(outside.join("victim").to_str().unwrap(), false, "user.x"),
        note("link/made", true, ""),
        note("../a/made", true, ""),
        note("..", true, ""),
        note("", true, ""),
        note("own", false, "trusted.overlay.redirect"),
        note("own", false, "security.capability"),
    ];
    let mut text = MAGIC.to_vec();
    notes.iter().for_each(|n| text.extend(n.encode_length_delimited_to_vec()));
    fs::write(store.join(FILE), &text).unwrap();
    apply(open(&store).as_fd()).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(get(&outside.join("victim"), c"user.x"), None);
    assert_eq!(get(&store.join("own"), c"trusted.overlay.redirect"), None);
    assert_eq!(get(&store.join("own"), c"security.capability"), None);

    // Damaged, cut, endless, or no file at all.
    for text in [
        &text[..text.len() - 3],
        &[MAGIC.as_slice(), &[0xff; 20]].concat(),
        &[MAGIC.as_slice(), &[0x80, 0x80, 0x80, 0x10]].concat(),
        b"other",
        b"",
    ] {
        fs::write(store.join(FILE), text).unwrap();
        let _ = apply(open(&store).as_fd());
    }
    fs::remove_file(store.join(FILE)).unwrap();
    rustix::fs::mknodat(CWD, store.join(FILE), FileType::Fifo, 0o600.into(), 0).unwrap();
    apply(open(&store).as_fd()).unwrap();
}

/// An engine that reads the store through an overlay, as containerd does for a commit.
#[test]
fn an_overlay_over_the_store_lists_no_whiteouts() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use sysbox_kernel::ns::{UnshareFlags, unshare};

    let (_dir, store, place) = dirs();
    fs::create_dir_all(store.join("overlay2/x/diff/d")).unwrap();
    fs::write(store.join("overlay2/x/diff/d/new"), "text").unwrap();
    let gone = store.join("overlay2/x/diff/d/gone");
    mknodat(CWD, &gone, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    write(open(&store).as_fd()).unwrap();

    // A mount namespace for this thread, which ends with it.
    unshare(UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let options = format!("lowerdir={}:{}", store.display(), place.display());
    let options = CString::new(options).unwrap();
    mount("overlay", &place, "overlay", MountFlags::empty(), &*options).unwrap();
    let listed: Vec<_> = fs::read_dir(place.join("overlay2/x/diff/d"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(listed, ["new"]);
    assert!(gone.symlink_metadata().is_ok(), "the store itself has it");
}
