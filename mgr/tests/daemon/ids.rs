//! Exclusive ranges, with the real files and real user namespaces.

use std::fs;

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
    for file in ["subuid", "subgid"] {
        let text = fs::read_to_string(host.path(file)).unwrap();
        assert_eq!(text, "me:100000:65536\nsysbox:231072:268435456\n");
    }
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
    let mut host = Host::without_daemon();
    host.fs = crate::fake_fs::start(&host.run_dir());
    for file in ["subuid", "subgid"] {
        fs::write(host.path(file), "sysbox:3000000000:131072\n").unwrap();
    }
    host.start();
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
