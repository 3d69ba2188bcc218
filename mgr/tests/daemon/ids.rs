//! Exclusive ranges, with the real files and real user namespaces.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use sysbox_ipc::proto::IdMapping;

use crate::host::Host;
use crate::need_root;

#[test]
fn containers_that_start_at_once_never_overlap() {
    need_root!();
    let host = Host::new();
    let ranges: Vec<(u32, u32)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let host = &host;
                scope.spawn(move || {
                    let (registered, init) = host.run(&host.request(&format!("c{n}")));
                    let map = registered.uid_mappings[0];
                    // Some come and go.
                    if n % 3 == 0 {
                        drop(init);
                        host.client().unregister(&format!("c{n}")).unwrap();
                        return None;
                    }
                    Some(((map.host_id, map.size), init))
                })
            })
            .collect();
        let live: Vec<_> = threads.into_iter().filter_map(|t| t.join().unwrap()).collect();
        live.iter().map(|(range, _)| *range).collect()
    });
    for (n, (start, size)) in ranges.iter().enumerate() {
        assert!(*start >= 231_072, "{start} is of another user");
        for (other, _) in &ranges[n + 1..] {
            assert!(start.abs_diff(*other) >= *size, "{start} and {other} overlap");
        }
    }
    // Where exactly depends on what else runs on the machine.
    let text = fs::read_to_string(host.path("subuid")).unwrap();
    assert!(text.starts_with("me:100000:65536\nsysbox:"), "{text}");
    assert!(text.ends_with(":268435456\n") && text.lines().count() == 2, "{text}");
    assert_eq!(fs::read_to_string(host.path("subgid")).unwrap(), text);
}

#[test]
fn the_user_namespace_has_the_mapping() {
    need_root!();
    let host = Host::new();
    let request = host.request("c1");
    let (registered, userns) = host.client().register(&request).unwrap();
    let start = registered.uid_mappings[0].host_id;
    // A process that enters it shows the map.
    let fd = std::os::fd::AsRawFd::as_raw_fd(&userns);
    let shown = std::process::Command::new("nsenter")
        .arg(format!("--user=/proc/{}/fd/{fd}", std::process::id()))
        .args(["--preserve-credentials", "cat", "/proc/self/uid_map"])
        .output()
        .unwrap();
    let map = String::from_utf8(shown.stdout).unwrap();
    let fields: Vec<_> = map.split_whitespace().collect();
    assert_eq!(fields, ["0", &start.to_string(), "65536"]);
}

#[test]
fn exhaustion_is_told_with_numbers_and_the_remedy_helps() {
    need_root!();
    let host = host_with_two_ranges(&["--fixed-subids"]);
    let first = host.run(&host.request("c1"));
    let _second = host.run(&host.request("c2"));
    let error = host.client().register(&host.request("c3")).unwrap_err();
    assert!(error.contains("room for 2 such ranges, and 2 are in use"), "{error}");
    let line = error.split('`').nth(1).unwrap().to_owned();
    drop(first);
    host.wait("the first to end", || host.state("c1").as_deref() == Some("exited"));
    assert!(host.client().register(&host.request("c3")).is_err(), "kept until it is deleted");
    host.client().unregister("c1").unwrap();
    let _third = host.run(&host.request("c3"));

    assert!(host.client().register(&host.request("c4")).is_err());
    for file in ["subuid", "subgid"] {
        let text = fs::read_to_string(host.path(file)).unwrap();
        fs::write(host.path(file), format!("{text}{line}\n")).unwrap();
    }
    host.run(&host.request("c4"));
}

#[test]
fn used_up_entries_get_another_beside_them() {
    need_root!();
    let host = host_with_two_ranges(&[]);
    let before = fs::read_to_string(host.path("subuid")).unwrap();
    let containers: Vec<_> = (0..3).map(|n| host.run(&host.request(&format!("c{n}")))).collect();
    let start = |n: usize| containers[n].0.uid_mappings[0].host_id;
    assert_eq!((start(0), start(1)), (3_000_000_000, 3_000_065_536));
    for file in ["subuid", "subgid"] {
        let text = fs::read_to_string(host.path(file)).unwrap();
        assert_eq!(text, format!("{before}sysbox:{}:268435456\n", start(2)));
    }
    // Ten times as many ids as one container usually has, and more than there are.
    let mut large = host.request("large");
    large.id_range_size = 655_360;
    let (registered, _init) = host.run(&large);
    assert_eq!(registered.uid_mappings[0].size, 655_360);
    let mut all = host.request("all");
    all.id_range_size = u32::MAX;
    let error = host.client().register(&all).unwrap_err();
    assert!(error.contains("no range of 4294967295 ids is free"), "{error}");
}

/// A host whose files give two ranges.
fn host_with_two_ranges(flags: &'static [&'static str]) -> Host {
    let mut host = Host::without_daemon();
    host.flags = flags;
    host.fs = crate::fake_fs::start(&host.run_dir());
    for file in ["subuid", "subgid"] {
        fs::write(host.path(file), "sysbox:3000000000:131072\n").unwrap();
    }
    host.start();
    host
}

#[test]
fn containers_of_a_pod_share_one_range() {
    need_root!();
    let mut host = Host::new();
    let (sandbox, userns, init) = host.run_in(&host.request("sandbox"), None);
    let (app, same, _app) = host.run_in(&host.request("app"), Some(userns.as_fd()));
    assert_eq!(app.uid_mappings, sandbox.uid_mappings);
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&same), inode(&userns));
    // The range is nobody else's, also when the first has gone and the manager was restarted.
    let mut thief = host.request("thief");
    thief.uid_mappings = app.uid_mappings.clone();
    thief.gid_mappings = app.gid_mappings.clone();
    for _ in 0..2 {
        let error = host.client().register(&thief).unwrap_err();
        assert!(error.contains("they could reach each other"), "{error}");
        let (other, init_of_other) = host.run(&host.request("other"));
        assert_ne!(other.uid_mappings, app.uid_mappings);
        init_of_other.kill();
        host.client().unregister("other").unwrap();
        host.stop(rustix::process::Signal::KILL);
        host.start();
        if host.state("sandbox").is_some() {
            init.kill();
            host.client().unregister("sandbox").unwrap();
        }
    }
    let (late, _, _late) = host.run_in(&host.request("late"), Some(userns.as_fd()));
    assert_eq!(late.uid_mappings, sandbox.uid_mappings);

    // The namespace of the host is no pod's.
    let own = fs::File::open("/proc/self/ns/user").unwrap();
    let error = host.client().register_in(&host.request("root"), Some(own.as_fd())).unwrap_err();
    assert!(error.contains("joining the user namespace"), "{error}");
}

#[test]
fn what_the_engine_gives_to_all_its_containers_is_theirs() {
    need_root!();
    let host = Host::new();
    let remapped = |id: &str, first: u32| {
        let mut request = host.request(id);
        request.uid_mappings = vec![IdMapping { container_id: 0, host_id: first, size: 65536 }];
        request.gid_mappings = request.uid_mappings.clone();
        request
    };
    let _containers = ["one", "two", "three"].map(|id| host.run(&remapped(id, 100_000)));
    // Exactly the same, or none of it.
    let error = host.client().register(&remapped("four", 165_535)).unwrap_err();
    assert!(error.contains("has 100000-165535"), "{error}");
}

#[test]
fn an_id_may_be_as_long_as_a_directory_name() {
    need_root!();
    let host = Host::new();
    let id = format!("{}z", "i".repeat(254));
    let mut request = host.request("long");
    fs::create_dir_all(host.path("rootfs-long/var/lib/docker")).unwrap();
    request.id.clone_from(&id);
    let (registered, _init) = host.run(&request);
    assert_eq!(registered.volumes.len(), 1);
    assert_eq!(host.state(&id).as_deref(), Some("running"));
}

#[test]
fn given_mappings_are_honoured_but_may_not_touch_another_container() {
    need_root!();
    let host = Host::new();
    let mut request = host.request("given");
    request.uid_mappings = vec![
        IdMapping { container_id: 0, host_id: 700_000, size: 10 },
        IdMapping { container_id: 10, host_id: 800_000, size: 1000 },
    ];
    request.gid_mappings = request.uid_mappings.clone();
    let (registered, _init) = host.run(&request);
    assert_eq!(registered.uid_mappings, request.uid_mappings);

    let mut other = host.request("other");
    other.uid_mappings = vec![IdMapping { container_id: 0, host_id: 800_999, size: 1 }];
    other.gid_mappings = vec![IdMapping { container_id: 0, host_id: 1, size: 1 }];
    let error = host.client().register(&other).unwrap_err();
    assert!(error.contains("container given has 800000-800999"), "{error}");
    other.uid_mappings[0].host_id = 0;
    let error = host.client().register(&other).unwrap_err();
    assert!(error.contains("root of the host"), "{error}");
}
