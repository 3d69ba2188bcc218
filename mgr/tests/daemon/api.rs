//! The API, by the `sysbox` command and by HTTP.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::host::{Host, Init};
use crate::need_root;

/// `sysbox` with these arguments, for the host's manager.
fn sysbox(host: &Host, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sysbox"));
    command.args(arguments).env("SYSBOX_RUN_DIR", host.run_dir());
    command
}

/// What it printed as JSON.
fn json(host: &Host, arguments: &[&str]) -> Value {
    let output = sysbox(host, arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn field(value: &Value, path: &str) -> String {
    let found = value.pointer(path).unwrap_or_else(|| panic!("no {path} in {value:#}"));
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}

#[test]
fn containers_are_listed_with_all_that_is_known_of_them() {
    need_root!();
    let host = Host::new();
    let mut request = host.request_with_volume("c1");
    let state_dir = host.path("state-c1");
    fs::create_dir(&state_dir).unwrap();
    request.state_dir = state_dir.to_str().unwrap().into();
    let state =
        r#"{"bundle": "/b", "annotations": {"nerdctl/name": "web"}, "system_container": true}"#;
    fs::write(state_dir.join("state.json"), state).unwrap();
    let (registered, init) = host.run(&request);

    let all = json(&host, &["ps"]);
    assert_eq!(all.as_array().unwrap().len(), 1);
    let shown = json(&host, &["inspect", "web"]);
    assert_eq!(shown["key"], json(&host, &["inspect", "c"])["key"]);
    for (path, expected) in [
        ("/id", "c1".to_owned()),
        ("/name", "web".to_owned()),
        ("/engine", "containerd".to_owned()),
        ("/state", "running".to_owned()),
        ("/pid", init.pid().to_string()),
        ("/bundle", "/b".to_owned()),
        ("/uid_mappings/0/host_id", registered.uid_mappings[0].host_id.to_string()),
        ("/volumes/0/destination", "/var/lib/docker".to_owned()),
    ] {
        assert_eq!(field(&shown, path), expected, "{path}");
    }
    let table = sysbox(&host, &["ps"]).output().unwrap();
    let table = text(&table);
    assert!(table.contains("web") && table.contains("running"), "{table}");
    fs::write(host.path("data/volumes/c1/docker/data"), vec![1; 1 << 20]).unwrap();
    fs::File::open(host.path("data/volumes/c1/docker/data")).unwrap().sync_all().unwrap();
    let volumes = json(&host, &["volumes", "--size"]);
    assert!(volumes[0]["bytes"].as_u64().unwrap() >= 1 << 20, "{volumes}");
    let unknown = sysbox(&host, &["inspect", "nobody"]).output().unwrap();
    assert!(!unknown.status.success() && text(&unknown).contains("no system container nobody"));
    let top = json(&host, &["top", "--count", "1", "--interval", "0.1"]);
    assert!(top.is_array(), "{top}");
}

#[test]
fn only_root_may_ask() {
    need_root!();
    let host = Host::new();
    for dir in [host.path("."), host.run_dir()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = host.path("sysbox");
    fs::copy(env!("CARGO_BIN_EXE_sysbox"), &program).unwrap();
    let ask = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(&program).arg("ps");
        let output = command.env("SYSBOX_RUN_DIR", host.run_dir()).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let closed = ask();
    assert!(closed.contains("only root may ask sysbox-mgr"), "{closed}");
    // A socket that was opened to all does not help: the kernel says who is asking.
    let socket = host.run_dir().join("sysbox.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = ask();
    assert!(refused.contains("user 1000 may not ask sysbox-mgr"), "{refused}");
    assert!(sysbox(&host, &["ps"]).output().unwrap().status.success());
}

#[test]
fn events_are_told_as_they_happen_and_afterwards() {
    need_root!();
    let host = Host::new();
    let mut listener = sysbox(&host, &["events", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    // The listener may be late: something is made to happen until it hears of it.
    let mut heard = None;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| lines.next().unwrap().unwrap());
        let mut n = 0;
        while !first.is_finished() {
            n += 1;
            let id = format!("c{n}");
            drop(host.run(&host.request(&id)));
            host.wait("its end", || host.state(&id).as_deref() == Some("exited"));
            host.client().unregister(&id).unwrap();
        }
        heard = Some(first.join().unwrap());
    });
    listener.kill().unwrap();
    listener.wait().unwrap();
    let heard: Value = serde_json::from_str(&heard.unwrap()).unwrap();
    assert!(field(&heard, "/container_id").starts_with('c'), "{heard}");

    let kept = sysbox(&host, &["events", "--no-follow"]).output().unwrap();
    let kept = text(&kept);
    let of_the_first: Vec<_> = kept.lines().filter(|line| line.contains(" c1")).collect();
    assert!(kept.lines().next().unwrap().contains("manager-started"), "{kept}");
    for (line, kind) in of_the_first.iter().zip(["created", "running", "exited", "deleted"]) {
        assert!(line.contains(kind), "{kept}");
    }
    assert_eq!(of_the_first.len(), 4, "{kept}");
}

/// Engines hide what a runtime that succeeds has to say.
#[test]
fn warnings_of_the_runtime_are_in_the_events_and_in_the_log() {
    need_root!();
    let host = Host::new();
    let client = host.client();
    client.register(&host.request("c1")).unwrap();
    let init = Init::start(Command::new("sleep").arg("1000"));
    client.commit_with("c1", init.pid(), &["/data: it is so", "/other: and so"]).unwrap();
    let kept = sysbox(&host, &["events", "--no-follow"]).output().unwrap();
    let log = fs::read_to_string(host.path("log")).unwrap();
    for warning in ["/data: it is so", "/other: and so"] {
        let line = text(&kept).lines().find(|line| line.contains(warning)).map(str::to_owned);
        assert!(
            line.is_some_and(|line| line.contains("warned") && line.contains("c1")),
            "{kept:?}"
        );
        let line = log.lines().find(|line| line.contains(warning));
        assert!(line.is_some_and(|line| line.contains("WARN") && line.contains("c1")), "{log}");
    }
}

#[test]
fn what_nobody_owns_is_told_and_collected() {
    need_root!();
    let mut host = Host::new();
    let request = host.request_with_volume("gone");
    drop(host.run(&request));
    host.wait("its end", || host.state("gone").as_deref() == Some("exited"));
    host.client().unregister("gone").unwrap();
    assert_eq!(json(&host, &["gc", "--dry-run"]), serde_json::json!([]));

    // The engine removes it while the manager is away, which finds the record unreadable.
    host.stop(Signal::KILL);
    fs::write(host.path("data/containers/other.json"), "{").unwrap();
    fs::create_dir(host.path("data/volumes/nobodys")).unwrap();
    host.start();
    let owner = host.path("data/volumes/gone/owner.json");
    fs::create_dir(host.path("data/volumes/lost")).unwrap();
    fs::copy(&owner, host.path("data/volumes/lost/owner.json")).unwrap();
    let add = sysbox_ipc::proto::AddContainer::default();
    host.fs.lock().unwrap().insert("stray".into(), add);
    fs::remove_dir_all(&request.rootfs).unwrap();

    let actions = |found: &Value| -> Vec<String> {
        let line = |l: &Value| {
            format!("{} {} {}", field(l, "/action"), field(l, "/kind"), field(l, "/container_id"))
        };
        let mut lines: Vec<_> = found.as_array().unwrap().iter().map(line).collect();
        // The watch may have been faster than this test.
        lines.retain(|line| !line.ends_with(" gone") && !line.contains(" trash "));
        lines.sort();
        lines
    };
    let would = actions(&json(&host, &["gc", "--dry-run"]));
    let expected = [
        "kept record ",
        "kept volumes nobodys",
        "would-be-removed files stray",
        "would-be-removed volumes lost",
    ];
    assert_eq!(would, expected);
    let done = actions(&json(&host, &["gc"]));
    let expected =
        ["kept record ", "kept volumes nobodys", "removed files stray", "removed volumes lost"];
    assert_eq!(done, expected);
    host.wait("everything to be gone", || {
        actions(&json(&host, &["gc"])).len() == 2 && !host.path("data/volumes/gone").exists()
    });
    assert_eq!(host.volumes(), ["nobodys"]);
}

#[test]
fn levels_of_the_logs_change_at_run_time() {
    need_root!();
    let host = Host::new();
    let set = json(&host, &["log-level", "error", "--daemon", "sysbox-mgr"]);
    assert_eq!(set, serde_json::json!({ "sysbox-mgr": "error" }));
    let quiet = fs::read_to_string(host.path("log")).unwrap().len();
    drop(host.run(&host.request("c1")));
    host.wait("its end", || host.state("c1").as_deref() == Some("exited"));
    assert_eq!(fs::read_to_string(host.path("log")).unwrap().len(), quiet, "it was not quiet");
    let both = json(&host, &["log-level", "debug"]);
    assert_eq!(both, serde_json::json!({ "sysbox-mgr": "debug", "sysbox-fs": "debug" }));
    assert_eq!(json(&host, &["log-level"]), both);
    host.client().unregister("c1").unwrap();
    assert!(fs::read_to_string(host.path("log")).unwrap().len() > quiet);
    let wrong = sysbox(&host, &["log-level", "loud"]).output().unwrap();
    assert!(!wrong.status.success() && text(&wrong).contains("use off, error, warn"));
}

#[test]
fn prometheus_reads_the_numbers() {
    need_root!();
    let mut host = Host::without_daemon();
    host.fs = crate::fake_fs::start(&host.run_dir());
    // A port that is free now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    host.start_with(&["--metrics", &address]);
    let (_, _init) = host.run(&host.request("c1"));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    };
    let page = get("/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for line in [
        "sysbox_up{daemon=\"sysbox-fs\",version=\"fake\"} 1",
        "sysbox_daemon_starts_total{daemon=\"sysbox-mgr\"} 1",
        "sysbox_daemon_starts_total{daemon=\"sysbox-fs\"} 3",
        "sysbox_open_fds{daemon=\"sysbox-fs\"} 7",
        "sysbox_containers{state=\"running\"} 1",
        "sysbox_host_ids_taken 65536",
        "sysbox_trapped_calls_seconds_count{call=\"mount\"} 0",
        "sysbox_register_seconds_count 1",
        "sysbox_emulated_reads_seconds_count 65",
        "sysbox_emulated_reads_seconds_sum 2",
        "sysbox_errors_total{kind=\"emulated-file\"} 9",
        "sysbox_events_total{kind=\"created\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
    assert!(get("/").starts_with("HTTP/1.1 404"));
    let same = sysbox(&host, &["metrics"]).output().unwrap();
    assert!(text(&same).contains("sysbox_containers{state=\"running\"} 1"));
}

#[test]
fn without_the_manager_it_is_said_what_to_do() {
    need_root!();
    let host = Host::without_daemon();
    let output = sysbox(&host, &["ps"]).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("sysbox-mgr is not running"), "{}", text(&output));
    let versions = json(&host, &["version"]);
    assert_eq!(field(&versions, "/sysbox"), env!("CARGO_PKG_VERSION"));
    assert!(field(&versions, "/sysbox-mgr/error").contains("not running"), "{versions}");
    let doctor = sysbox(&host, &["doctor", "--json"]).output().unwrap();
    assert!(!doctor.status.success());
    let checks: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let checks = checks.as_array().unwrap();
    let manager = checks.iter().find(|check| check["check"] == "sysbox-mgr").unwrap();
    assert_eq!(manager["result"], "missing");
    assert!(field(manager, "/remedy").contains("systemctl start sysbox-mgr"));
    for check in checks {
        assert!(!field(check, "/gives").is_empty(), "{check}");
        assert_eq!(field(check, "/remedy").is_empty(), check["result"] == "ok", "{check}");
    }
}
