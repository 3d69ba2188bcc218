use std::fs;

use super::*;

fn record(id: &str, key: u32) -> Record {
    Record {
        version: VERSION,
        id: id.to_owned(),
        key,
        state: State::Running,
        rootfs: "/rootfs".into(),
        owner: None,
        uid_mappings: vec![],
        gid_mappings: vec![],
        cgroups: Cgroups::default(),
        state_dir: "/run/x".into(),
        boot_id: process::boot_id(),
        creator: None,
        init: None,
        userns_inode: 0,
        root_mount: None,
        created_boottime_ns: 0,
        volumes: vec![],
        given: false,
    }
}

#[test]
fn records_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    let key = registry.next_key().unwrap();
    registry.put(record("a", key)).unwrap();
    registry.update("a", |r| r.state = State::Exited).unwrap().unwrap();
    assert!(registry.update("b", |_| ()).unwrap().is_none());

    let mut again = Registry::open(dir.path()).unwrap();
    assert_eq!(again.get("a").unwrap().state, State::Exited);
    assert!(again.next_key().unwrap() > key);
    again.remove("a").unwrap();
    again.remove("a").unwrap();
    assert_eq!(Registry::open(dir.path()).unwrap().iter().count(), 0);
}

#[test]
fn ids_may_be_as_long_as_a_directory_name() {
    let dir = tempfile::tempdir().unwrap();
    let long = |last: char| format!("{}{last}", "x".repeat(254));
    let mut registry = Registry::open(dir.path()).unwrap();
    for (key, id) in [long('a'), long('b'), "x".repeat(241), "x".repeat(240)].iter().enumerate() {
        registry.put(record(id, key as u32)).unwrap();
    }
    let mut again = Registry::open(dir.path()).unwrap();
    assert_eq!(again.iter().map(|r| r.key).collect::<Vec<_>>(), [3, 2, 0, 1]);
    again.remove(&long('a')).unwrap();
    assert_eq!(Registry::open(dir.path()).unwrap().iter().count(), 3);
}

#[test]
fn unreadable_records_are_set_aside_and_the_others_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let containers = dir.path().join("containers");
    let mut registry = Registry::open(dir.path()).unwrap();
    registry.put(record("good", 1)).unwrap();
    registry.put(Record { version: VERSION + 1, ..record("newer", 2) }).unwrap();
    fs::write(containers.join("cut.json"), "{\"version\":1,\"id\":\"cu").unwrap();
    fs::write(containers.join("empty.json"), "").unwrap();
    fs::copy(containers.join("good.json"), containers.join("other.json")).unwrap();
    fs::write(containers.join("9.tmp"), "half").unwrap();

    let again = Registry::open(dir.path()).unwrap();
    assert_eq!(again.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["good"]);
    let mut names: Vec<_> = fs::read_dir(&containers)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "cut.json.corrupt",
            "empty.json.corrupt",
            "good.json",
            "newer.json.corrupt",
            "other.json.corrupt"
        ]
    );
}

/// What the first version of the manager wrote. It is never changed: it must be read by all that follow.
const GOLDEN: &str = include_str!("golden-v1.json");

#[test]
fn a_record_of_the_first_version_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("containers")).unwrap();
    std::fs::write(dir.path().join("containers/c1.json"), GOLDEN).unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    let record = registry.get("c1").unwrap();
    assert_eq!((record.key, record.state), (7, State::Running));
    assert_eq!(record.init.unwrap().pid, 2383);
    assert_eq!(record.ids().next().unwrap().start(), 231_072);
    assert_eq!(record.volumes[0].destination, "/var/lib/docker");
    assert!(registry.next_key().unwrap() > 7);
}

#[test]
fn fields_that_a_later_version_adds_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("containers")).unwrap();
    let later = GOLDEN.replace("\"key\": 7,", "\"key\": 7, \"something_new\": [1],");
    std::fs::write(dir.path().join("containers/c1.json"), later).unwrap();
    assert_eq!(Registry::open(dir.path()).unwrap().get("c1").unwrap().key, 7);
}

#[test]
fn what_is_taken_counts_before_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    let ids = crate::ids::IdMapping { inside: 0, outside: 231_072, count: 65_536 };
    assert!(registry.take(Record { uid_mappings: vec![ids], ..record("new", 1) }).is_none());
    assert_eq!(registry.ids_in_use().count(), 1);
    assert_eq!(Registry::open(dir.path()).unwrap().iter().count(), 0);
    registry.put_back("new", None);
    assert!(registry.get("new").is_none());

    let stopped = Record { state: State::Stopped, ..record("again", 2) };
    registry.put(stopped.clone()).unwrap();
    let former = registry.take(record("again", 3));
    assert_eq!(Registry::open(dir.path()).unwrap().get("again"), Some(&stopped));
    registry.put_back("again", former);
    assert_eq!(registry.get("again"), Some(&stopped));
}

/// However a record is replaced: what a crash in between leaves is one that is whole.
#[test]
fn a_replaced_record_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::open(dir.path()).unwrap();
    for state in [State::Creating, State::Running, State::Exited] {
        registry.put(Record { state, ..record("a", 1) }).unwrap();
        let names = fs::read_dir(dir.path().join("containers")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.json"]);
        assert_eq!(Registry::open(dir.path()).unwrap().get("a").unwrap().state, state);
    }
}
