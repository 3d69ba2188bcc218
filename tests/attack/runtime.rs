//! The runtime leaves nothing to a process that it starts but what belongs to it, and its own program
//! can't be overwritten from inside.

use std::fs;
use std::time::Duration;

use sysbox_tests::{BUSYBOX, Container, World, alone, shared, wait_until};

use crate::tool::{ATTACKER, container, judge};

#[test]
fn a_new_process_has_nothing_of_the_runtime() {
    let _world = shared();
    judge(container().run([ATTACKER, "fresh"]), 5);
    judge(container().args(["--user", "1000:1000"]).run([ATTACKER, "fresh"]), 5);
    judge(container().args(["--init"]).run([ATTACKER, "fresh"]), 5);
    let running = container().start(["sleep", "1000"]);
    judge(running.exec(&[], [ATTACKER, "fresh"]), 5);
    judge(running.exec(&["--user", "1000"], [ATTACKER, "fresh"]), 5);
    judge(running.exec(&["--tty"], [ATTACKER, "fresh"]), 5);
    judge(running.exec(&["--privileged"], [ATTACKER, "fresh"]), 5);
}

/// CVE-2024-21626: a descriptor of the runtime as working directory.
#[test]
fn no_descriptor_of_the_runtime_is_a_working_directory() {
    let _world = shared();
    let running = container().start(["sleep", "1000"]);
    for number in 3..24 {
        let dir = format!("/proc/self/fd/{number}");
        let started = container().args(["--workdir", &dir]).run([ATTACKER, "fresh"]);
        if started.stdout.contains("attempts,") {
            judge(started, 5);
        }
        let entered = running.exec(&["--workdir", &dir], [ATTACKER, "fresh"]);
        if entered.stdout.contains("attempts,") {
            judge(entered, 5);
        }
    }
}

/// CVE-2019-5736: the program of the runtime, by way of /proc/PID/exe.
#[test]
fn the_runtime_is_not_overwritten() {
    let _world = alone();
    let runtime = fs::canonicalize(World::current().runtime()).expect("the runtime");
    let before = fs::read(&runtime).expect("reading the runtime");
    let catcher = container().start([ATTACKER, "catch-runtime", "6"]);
    wait_until("the catcher has ended", Duration::from_secs(30), || {
        // A program that is the runtime itself runs on and can be caught for longer.
        for command in [ATTACKER, "/proc/self/exe", "/proc/thread-self/exe"] {
            catcher.exec(&[], [command, "--version"]);
        }
        match catcher.inspect(".State.Running").as_str() {
            "false" => Ok(()),
            running => Err(format!("running: {running}")),
        }
    });
    let log = catcher.docker(["logs"]);
    println!("{log}");
    assert!(!log.contains("BREACH"), "{log}");
    assert!(fs::read(&runtime).expect("reading the runtime") == before, "the runtime was changed");
    Container::new(BUSYBOX).sh("true").ok();
}

#[test]
fn a_link_to_the_runtime_is_no_program() {
    let _world = shared();
    let script =
        "ln -s /proc/self/exe /evil; printf '#!/proc/self/exe\\n' >/script; chmod 755 /script;
        sleep 1000";
    let running = container().start(["sh", "-c", script]);
    wait_until("the script is there", Duration::from_secs(10), || {
        let found = running.sh("test -x /script");
        if found.success() { Ok(()) } else { Err(found.to_string()) }
    });
    for program in ["/evil", "/script"] {
        let output = running.exec(&[], [program, "list"]);
        // Whatever runs there, it is confined as all of the container: it finds no containers.
        assert!(!output.stdout.contains(&running.id()), "{output}");
    }
}

#[test]
fn ids_that_are_no_ids() {
    let _world = shared();
    for user in ["4294967296", "-1", "18446744073709551616", "65536:0x0", "70000"] {
        let refused = Container::new(BUSYBOX).args(["--user", user]).run(["id"]);
        println!("{user}: {refused}");
        assert!(!refused.stdout.contains("uid=0"), "{user}: {refused}");
    }
}
