//! The daemons are killed at any instant, and nothing inside notices more than a pause.

mod crash;
mod load;
mod reboot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sysbox_tests::daemons::kill;
use sysbox_tests::{BOOKWORM, BUSYBOX, Container, alone, wait_until};

/// What is done inside in a loop; every step must succeed.
///
/// The count of rounds and the longest one (in hundredths of a second) go to /rounds.
const MOUNTS: &str = "
    mkdir -p /m /n; n=0; longest=0
    now() { awk '{ print int($1 * 100) }' /proc/uptime; }
    while [ ! -e /stop ]; do
        before=$(now)
        mount -t proc proc /m || exit 11
        [ -r /m/self/stat ] && grep -q MemTotal /m/meminfo || exit 12
        mount -t sysfs sysfs /n || exit 13
        umount /n || exit 14
        umount /m || exit 15
        mknod /null c 1 3 || exit 16
        rm /null
        grep -q ' /[mn] ' /proc/self/mountinfo && exit 17
        took=$(($(now) - before)); [ $took -le $longest ] || longest=$took
        n=$((n + 1)); echo \"$n $longest\" >/rounds.new; mv /rounds.new /rounds
    done
    echo ended >/ended";

/// Calls `kill` for the choices in turn, at instants that differ, until the time is over.
fn kill_for(time: Duration, choices: &[&[&str]]) -> usize {
    let end = Instant::now() + time;
    let mut kills = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_micros(50_000 + (kills as u64 * 7_919_377) % 400_000));
        kill(choices[kills % choices.len()]);
        kills += 1;
    }
    kills
}

const EACH: [&[&str]; 3] = [&["sysbox-mgr"], &["sysbox-fs"], &["sysbox-fs", "sysbox-mgr"]];

#[test]
fn mounts_inside_only_pause_while_daemons_are_killed() {
    let _world = alone();
    let systems: Vec<_> =
        (0..3).map(|_| Container::new(BUSYBOX).start(["sh", "-c", MOUNTS])).collect();
    let kills = kill_for(Duration::from_secs(20), &EACH);
    for system in &systems {
        let rounds = system.sh("cat /rounds").ok();
        // The container may end, and this command with it, before it can say that it worked.
        let _ = system.sh("touch /stop");
        wait_until("the loop has ended", Duration::from_secs(30), || {
            match system.inspect(".State.Running").as_str() {
                "false" => Ok(()),
                _ => Err(rounds.clone()),
            }
        });
        assert_eq!(system.inspect(".State.ExitCode"), "0", "{kills} kills, {rounds} rounds");
        let numbers: Vec<u32> = rounds.split(' ').map(|n| n.parse().expect("a number")).collect();
        eprintln!("{kills} kills, {} rounds, the longest took {}0 ms", numbers[0], numbers[1]);
        assert!(numbers[0] > 20, "{rounds} rounds");
    }
}

#[test]
fn inner_containers_run_while_daemons_are_killed() {
    let _world = alone();
    let system = Container::booted::<&str>(BOOKWORM, []);
    system.sh("docker load --input /opt/busybox.tar").ok();
    let stop = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let inner = scope.spawn(|| {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                let script = "grep -c MemTotal /proc/meminfo";
                let run = format!("docker run --rm {BUSYBOX} sh -c '{script}'");
                assert_eq!(system.sh(&run).ok(), "1");
                runs += 1;
            }
            runs
        });
        let kills = kill_for(Duration::from_secs(20), &EACH);
        stop.store(true, Ordering::Relaxed);
        eprintln!("{kills} kills");
        inner.join().expect("inner containers")
    });
    assert!(runs >= 3, "{runs} inner containers");
    assert_eq!(system.sh("systemctl is-system-running").ok(), "running");
    assert_eq!(system.sh("docker ps --all --quiet").ok(), "");
}

#[test]
fn containers_are_made_and_removed_while_daemons_are_killed() {
    let _world = alone();
    let stop = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let engine = scope.spawn(|| {
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                let output = Container::new(BUSYBOX).sh("grep -c MemTotal /proc/meminfo");
                assert_eq!(output.ok(), "1");
                runs += 1;
            }
            runs
        });
        let kills = kill_for(Duration::from_secs(20), &EACH);
        stop.store(true, Ordering::Relaxed);
        eprintln!("{kills} kills");
        engine.join().expect("containers")
    });
    assert!(runs >= 3, "{runs} containers");
}
