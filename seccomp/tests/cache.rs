//! The cache of compiled programs.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::*;
use serde_json::json;
use sysbox_seccomp::{Cache, Request, program};

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_second_request_is_answered_from_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on/the/way");
    let unknown = json!({"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"});
    let profile = parse(with_rule(docker(), unknown));
    let request = Request { profile: Some(&profile), system_container: true, traps: true };
    let first = program(&request, Some(&dir)).unwrap();
    assert_eq!(first.1.len(), 1);
    assert_eq!(files(&dir).len(), 1);
    assert_eq!(fs::metadata(&files(&dir)[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let cached = Cache::open(&dir).unwrap().load(&request).unwrap();
    assert_eq!(cached, first);
    for other in [
        Request { traps: false, ..request },
        Request { system_container: false, ..request },
        Request { profile: None, ..request },
    ] {
        assert!(Cache::open(&dir).unwrap().load(&other).is_none());
    }
}

#[test]
fn a_file_that_is_not_whole_or_not_ours_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let profile = parse(docker());
    let request = Request { profile: Some(&profile), system_container: true, traps: true };
    let fresh = program(&request, Some(dir.path())).unwrap().0;
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    assert!(cache.load(&request).is_some());

    let mut other_key = whole.clone();
    other_key[30] ^= 1;
    let mut huge_length = whole.clone();
    huge_length[8..12].fill(0xff);
    for bad in [&whole[..whole.len() - 8], &whole[..10], &[], &other_key, &huge_length] {
        fs::write(&file, bad).unwrap();
        assert!(cache.load(&request).is_none());
    }
    fs::write(&file, &whole).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    assert!(cache.load(&request).is_none());
    // A request makes it whole again.
    assert_eq!(program(&request, Some(dir.path())).unwrap().0, fresh);
    assert_eq!(cache.load(&request).unwrap().0, fresh);
    let target = dir.path().join("target");
    fs::rename(&file, &target).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    assert!(cache.load(&request).is_none());
}

#[test]
fn a_directory_that_others_can_write_is_told_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let request = Request { profile: None, system_container: true, traps: true };
    let (program, warnings) = program(&request, Some(dir.path())).unwrap();
    assert!(program.has_traps());
    assert!(warnings[0].as_str().contains("writable by nobody else"), "{}", warnings[0]);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn old_files_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let program =
        program(&Request { profile: None, system_container: true, traps: true }, None).unwrap().0;
    for errno in 1..100 {
        let profile = parse(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno}));
        let request = Request { profile: Some(&profile), system_container: true, traps: true };
        cache.store(&request, &program, &[]).unwrap();
        assert!(cache.load(&request).is_some());
    }
    assert_eq!(files(dir.path()).len(), 64);
}
