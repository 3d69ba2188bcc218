//! The attacker: runs inside of a container and tries what must not work.
//!
//! ```text
//! sysbox-attacker locked GOAL...          make read-only mounts writable, see hidden files:
//!                                         ro:DIRECTORY or mask:FILE:HIDDEN TEXT
//! sysbox-attacker uring GOAL...           the same by io_uring, which no filter of system calls sees
//! sysbox-attacker host                    change the host: calls, settings, devices, cgroups
//! sysbox-attacker victim SECRET           be the neighbour of the next one
//! sysbox-attacker neighbours SECRET KEY PID
//! sysbox-attacker fresh                   look for what a new process should not have
//! sysbox-attacker layout                  whether /dev, /proc, /sys are what they are named
//! sysbox-attacker catch-runtime SECONDS   overwrite the runtime's program while it enters
//! sysbox-attacker malformed               requests that no honest program makes
//! sysbox-attacker fuzz SEED SECONDS       random calls of the mount family
//! sysbox-attacker load SECONDS            honest calls, many at once, with signals
//! sysbox-attacker measure ROUNDS          how long mount(2) and umount(2) take: kind, p50, p99 in us
//! sysbox-attacker calls                   how long calls without a trap take, in ns
//! ```
//!
//! Each prints a line for every attempt with the answer, `BREACH` lines for what worked and must not,
//! and a last line with the numbers; it exits with 3 if there was a breach.

mod escape;
mod garbage;
mod goal;
mod host;
mod locked;
mod measure;
mod neighbours;
mod places;
mod report;
mod sys;
mod uring;

use std::time::Duration;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seconds = |text: &str| Duration::from_secs(text.parse().unwrap_or(1));
    match words.as_slice() {
        [way @ ("locked" | "uring"), goals @ ..] => {
            let goals: Option<Vec<_>> = goals.iter().map(|goal| goal::Goal::parse(goal)).collect();
            let goals = goals.expect("goals like ro:/path or mask:/path:text");
            if *way == "uring" { uring::attack(&goals) } else { places::attack(&goals) }
        }
        ["host"] => {
            report::in_child("system calls", host::calls);
            report::in_child("devices", host::devices);
            report::in_child("cgroups", host::cgroups);
            report::in_child("settings", host::settings);
        }
        ["victim", secret] => neighbours::victim(secret),
        ["neighbours", secret, key, pid] => neighbours::attack(secret, key, pid),
        ["fresh"] => escape::fresh(),
        ["layout"] => escape::layout(),
        ["catch-runtime", time] => escape::catch_runtime(seconds(time)),
        ["malformed"] => {
            garbage::malformed();
            garbage::files();
        }
        ["fuzz", seed, time] => garbage::fuzz(seed.parse().unwrap_or(1), seconds(time)),
        ["load", time] => garbage::load(seconds(time)),
        ["measure", rounds] => return measure::mounts(rounds.parse().unwrap_or(100)),
        ["calls"] => return measure::calls(),
        _ => {
            eprintln!("unknown words {words:?}; the source's first page lists the known ones");
            std::process::exit(2);
        }
    }
    report::end();
}
