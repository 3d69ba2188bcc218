//! The `sysbox` command on the engine's containers.

use serde_json::Value;
use sysbox_tests::{Cmd, Container, World, shared, sysbox};

fn json(arguments: &[&str]) -> Value {
    let text = sysbox(&["--json"]).args(arguments).ok();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"))
}

#[test]
fn a_container_is_shown_as_the_engine_calls_it() {
    let _world = shared();
    let container = Container::sleeping(["--memory", "64m"]);
    let (id, name) = (container.id(), container.name.clone());
    let shown = json(&["inspect", &name]);
    assert_eq!(shown["id"], id.as_str());
    assert_eq!((&shown["name"], &shown["engine"]), (&name.as_str().into(), &"docker".into()));
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["pid"], container.pid());
    assert_eq!(shown["uid_mappings"][0]["size"], 65536);
    assert_eq!(shown["system_container"], true);
    if World::current().has_controllers("a_container_is_shown_as_the_engine_calls_it", &["memory"])
    {
        assert_eq!(shown["usage"]["memory_limit_bytes"], 64 << 20);
        assert!(shown["usage"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{shown}");
    }
    assert!(shown["usage"]["cpu_ns"].as_u64().is_some_and(|ns| ns > 0), "{shown}");

    container.docker(["pause"]);
    assert_eq!(json(&["inspect", &id[..12]])["state"], "paused");
    container.docker(["unpause"]);
    let renamed = format!("{name}-renamed");
    Cmd::docker(["rename", &name, &renamed]).ok();
    let table = sysbox(&["ps"]).ok();
    let line = table.lines().find(|line| line.starts_with(&renamed)).expect("a line of it");
    assert!(line.contains(&id[..12]) && line.contains("running"), "{table}");
    let top = json(&["top", "--count=1", "--interval=0.2"]);
    assert!(top.as_array().expect("lines").iter().any(|l| l["id"] == id.as_str()), "{top}");
    Cmd::docker(["rename", &renamed, &name]).ok();

    container.sh("cat /proc/meminfo >/dev/null; mkdir /m; mount -t proc proc /m && umount /m").ok();
    let metrics = sysbox(&["metrics"]).ok();
    let value = |name: &str| -> f64 {
        let line =
            metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number")
    };
    for counted in [
        "sysbox_trapped_calls_seconds_count{call=\"mount\"}",
        "sysbox_emulated_reads_seconds_count",
        "sysbox_register_seconds_count",
        "sysbox_open_fds{daemon=\"sysbox-fs\"}",
        "sysbox_containers{state=\"running\"}",
    ] {
        assert!(value(counted) >= 1.0, "{counted} in\n{metrics}");
    }
    assert!(metrics.contains(&format!("name=\"{name}\"")), "{metrics}");
    let events = sysbox(&["events", "--no-follow"]).ok();
    assert!(events.lines().any(|l| l.contains(" running ") && l.contains(&id[..12])), "{events}");
}

#[test]
fn the_doctor_finds_both_daemons() {
    let _world = shared();
    // Whether all is well with the machine is not for this test to say.
    let output = sysbox(&["--json", "doctor"]).run();
    let checks: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let result = |what: &str| {
        let found = checks.as_array().expect("checks").iter().find(|c| c["check"] == what);
        found.unwrap_or_else(|| panic!("no check {what} in {checks:#}"))["result"].clone()
    };
    for what in
        ["sysbox-mgr", "sysbox-fs", "user namespaces", "FUSE", "cgroups", "kernel", "rights"]
    {
        assert_eq!(result(what), "ok", "{checks:#}");
    }
}
