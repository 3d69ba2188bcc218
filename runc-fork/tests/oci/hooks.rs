//! The six hooks: when, where and with what they run.

use std::fs;

use serde_json::{Value, json};

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("hooks::all_in_their_order_and_namespaces", all),
    ("hooks::without_env_have_that_of_the_runtime_but_never_that_of_the_image", environment),
    ("hooks::a_failure_ends_create", failure),
    ("hooks::a_timeout_ends_create", timeout),
];

fn all(world: &World) {
    let mut bundle = Bundle::sleeping(world, "hooks");
    let (script, log) = (bundle.dir.join("hook"), bundle.dir.join("log"));
    let shared = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, shared).unwrap();
    let line = "echo \"$1|$(id -u)|$(readlink /proc/self/ns/mnt)|$(env | grep -c HOOK)|$(cat)\"";
    bundle.script(&script, &format!("{line} >> {}", log.display()));
    bundle.script(&bundle.dir.join("rootfs/bin/hook"), "cat > /state; id -u >> /state");
    let hook = |name: &str| json!([{ "path": script, "args": ["hook", name], "env": ["HOOK=1"] }]);
    bundle.spec["hooks"] = json!({
        "prestart": hook("prestart"),
        "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"),
        "startContainer": [{ "path": "/bin/hook", "env": ["PATH=/bin"] }],
        "poststart": hook("poststart"),
        "poststop": hook("poststop"),
    });
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.spec["hooks"][kind][0]["env"] = json!(["HOOK=1", "PATH=/bin:/usr/bin"]);
    }
    bundle.start();
    let pid = bundle.pid();
    crate::world::wait_until("startContainer", || {
        bundle.exec("cat /state").out.lines().count() > 0
    });
    let inside = bundle.exec("cat /state").ok();
    assert!(inside.contains("\"status\":\"created\"") && inside.ends_with('0'), "{inside}");
    bundle.call(&["delete", "--force"], &[]).ok();

    let log = fs::read_to_string(log).unwrap();
    let rows: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(5, '|').collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    let host = fs::read_link("/proc/self/ns/mnt").unwrap();
    for row in &rows {
        let state: Value = serde_json::from_str(row[4]).unwrap();
        assert_eq!(state["id"], bundle.id.as_str());
        assert_eq!(row[3], "1", "the environment of {}", row[0]);
        let in_container = row[0] == "createContainer";
        assert_eq!(row[2] != host.to_str().unwrap(), in_container, "{row:?}");
        let status = match row[0] {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!(state["status"], status);
        if status != "stopped" {
            assert_eq!(state["pid"], pid);
        }
    }
}

fn environment(world: &World) {
    let mut bundle = Bundle::new(world, "env", "true");
    bundle.spec["process"]["env"] = json!(["PATH=/bin", "OF_THE_IMAGE=1"]);
    bundle.spec["annotations"] = json!({ "mine": "1" });
    let (script, log) = (bundle.dir.join("hook"), bundle.dir.join("log"));
    bundle.script(
        &script,
        &format!("echo \"$1 $PATH\" >> {0}; env >> {0}; cat >> {0}", log.display()),
    );
    let shared = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, shared).unwrap();
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.spec["hooks"][kind] = json!([{ "path": script, "args": ["hook", kind] }]);
    }
    bundle.run().ok();
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("OF_THE_IMAGE"), "{log}");
    let path = std::env::var("PATH").unwrap();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert!(log.contains(&format!("{kind} {path}\n")), "{kind}: {log}");
    }
    assert!(!log.contains(&format!("createContainer {path}\n")), "{log}");
    // What the runtime has decided is not among the annotations of the engine.
    assert_eq!(log.matches(r#""annotations":{"mine":"1"}"#).count(), 5, "{log}");
}

fn failure(world: &World) {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut bundle = Bundle::sleeping(world, &format!("bad-{}", kind.to_lowercase()));
        bundle.spec["hooks"] = json!({ kind: [{ "path": "/bin/true" }, { "path": "/bin/sh", "args": ["sh", "-c", "exit 5"] }] });
        let done = bundle.run();
        assert_ne!(done.code, Some(0));
        let words = format!("error running {kind} hook #1:");
        assert!(format!("{}{}", done.out, done.err).contains(&words), "{done:?}");
        assert!(!world.path("root").join(&bundle.id).exists());
    }
}

fn timeout(world: &World) {
    let mut bundle = Bundle::sleeping(world, "slow");
    bundle.spec["hooks"] = json!({ "createRuntime":
        [{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }] });
    bundle.run().fails(1, "timeout");
}
