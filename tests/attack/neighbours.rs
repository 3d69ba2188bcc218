//! One container's files, keys, IPC objects, sockets and processes are out of another's reach.

use std::time::Duration;

use sysbox_tests::{alone, id_range, wait_until};

use crate::tool::{ATTACKER, container, judge};

#[test]
fn another_container_is_out_of_reach() {
    let _world = alone();
    let secret = format!("secret-{}", std::process::id());
    let victim = container().start([ATTACKER, "victim", &secret]);
    let mut key = String::new();
    wait_until("the victim is ready", Duration::from_secs(20), || {
        let log = victim.docker(["logs"]);
        let number = log.lines().find_map(|line| line.strip_prefix("ready, key "));
        key = number.ok_or(log.clone())?.to_owned();
        Ok(())
    });
    let pid = victim.pid().to_string();
    let text = judge(container().run([ATTACKER, "neighbours", &secret, &key, &pid]), 40);
    assert!(text.contains("visible process 1: \"attacker\""), "the attacker sees itself: {text}");
    // Two containers side by side don't share an id either.
    let other = container().start([ATTACKER, "victim", &secret]);
    let [one, two] = [&victim, &other].map(|container| id_range(container.pid(), "uid_map"));
    assert!(!one.overlaps(two), "{one:?} {two:?}");
}
