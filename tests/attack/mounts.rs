//! Read-only and hidden mounts that a container starts with stay so, whatever container root calls.

use std::fs;

use sysbox_tests::shared;

use crate::tool::{ATTACKER, container, judge};

/// What the files say that others are mounted over.
const HIDDEN: &str = "mask:/etc/debian_version:12.";

struct Given {
    _dir: tempfile::TempDir,
    volume: String,
    cover: String,
}

/// A directory to give read-only, and a file to hide another one.
fn given() -> Given {
    let dir = tempfile::tempdir().expect("a directory");
    let (volume, cover) = (dir.path().join("volume"), dir.path().join("cover"));
    fs::create_dir(&volume).expect("mkdir");
    fs::write(volume.join("file"), "read only").expect("write");
    fs::write(&cover, "not the image's").expect("write");
    Given {
        volume: format!("{}:/vol:ro", volume.display()),
        cover: format!("{}:/etc/debian_version", cover.display()),
        _dir: dir,
    }
}

#[test]
fn a_read_only_volume_and_a_hidden_file_stay_so() {
    let _world = shared();
    let given = given();
    let attacked = container().args(["--volume", &given.volume, "--volume", &given.cover]);
    let text = judge(attacked.run([ATTACKER, "locked", "ro:/vol", HIDDEN]), 10);
    // It was not all in vain: the attempts that harm nothing were carried out.
    for works in ["bind flags 0x1000 /vol (Native): Ok", "open_tree 0x8000 of /, move_mount"] {
        assert!(text.contains(works), "{works}");
    }
    assert_eq!(fs::read_to_string(given._dir.path().join("volume/file")).unwrap(), "read only");
    assert_eq!(fs::read_dir(given._dir.path().join("volume")).unwrap().count(), 1);
}

#[test]
fn without_any_seccomp_profile_they_stay_so_too() {
    let _world = shared();
    let given = given();
    let attacked = container().args(["--security-opt", "seccomp=unconfined"]).args([
        "--volume",
        &given.volume,
        "--volume",
        &given.cover,
    ]);
    judge(attacked.run([ATTACKER, "locked", "ro:/vol", HIDDEN]), 10);
}

#[test]
fn nor_are_they_reached_by_io_uring() {
    let _world = shared();
    let given = given();
    let volumes = ["--volume", &given.volume, "--volume", &given.cover];
    // Engines' profiles leave io_uring out; without one it is there.
    let open = container().args(["--security-opt", "seccomp=unconfined"]).args(volumes);
    let text = judge(open.run([ATTACKER, "uring", "ro:/vol", HIDDEN]), 20);
    assert!(text.contains("io_uring mkdirat in /vol"), "{text}");
    assert_eq!(fs::read_dir(given._dir.path().join("volume")).unwrap().count(), 1);
    judge(container().args(volumes).run([ATTACKER, "uring", "ro:/vol", HIDDEN]), 1);
}

#[test]
fn a_read_only_root_stays_so() {
    let _world = shared();
    let attacked = container().args(["--read-only", "--tmpfs", "/tmp"]);
    judge(attacked.run([ATTACKER, "locked", "ro:/etc", "ro:/"]), 10);
}

#[test]
fn a_read_only_tmpfs_stays_so() {
    let _world = shared();
    let attacked = container().args(["--mount", "type=tmpfs,destination=/fixed,readonly"]);
    judge(attacked.run([ATTACKER, "locked", "ro:/fixed"]), 10);
}
