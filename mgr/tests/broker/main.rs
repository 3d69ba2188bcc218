//! The mount broker against the kernel: containers in the layout of the runtime (every mount made
//! by the host and locked by a copy inside the user namespace), with the runtime's own seccomp
//! program and the virtualised files as plain files on a tmpfs.
//!
//! Needs root, and is skipped without. Not on the standard test harness: namespaces are entered by
//! processes that have one thread.
//!
//! `cargo test --test broker [NAME...]` runs the cases with these words in their names;
//! `BROKER_LATENCY=1` measures too.

mod cases;
mod changes;
mod container;
mod idle;
mod latency;
mod layout;
mod load;
mod nested;

use std::io::{self, Write};
use std::process::ExitCode;

use cases::Case;
use sysbox_mgr::broker::Features;

/// First argument of a process that is to build a container and run a case in it.
const BUILD: &str = "--build-container";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(BUILD) {
        let name = arguments.next().unwrap_or_default();
        let case = all().into_iter().find(|case| case.name == name);
        return container::build(&case.expect("a case of this name"));
    }
    if first.as_deref() == Some(idle::SLEEPERS) {
        return idle::sleepers();
    }
    if !rustix::process::geteuid().is_root() {
        println!("broker: skipped, needs root");
        return ExitCode::SUCCESS;
    }
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).try_init();
    let words: Vec<String> = first.into_iter().chain(arguments).collect();
    // What the standard harness takes, tools pass on: options mean nothing here.
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    run(&words)
}

fn all() -> Vec<Case> {
    let mut all = cases::CASES.to_vec();
    all.extend(changes::CASES);
    all.extend(nested::CASES);
    all.extend(load::CASES);
    all.extend(latency::CASES);
    all
}

fn run(words: &[&String]) -> ExitCode {
    let host = container::Host::new();
    let newest = Features::probe().expect("probing");
    let oldest = Features {
        pidns_option: false,
        detached_trees: false,
        single_mounts: false,
        foreign_mounts: false,
    };
    if measures() && (words.is_empty() || words.iter().any(|word| "idle".contains(*word))) {
        idle::measure(&host, newest);
    }
    let mut failed = 0;
    for (features, label) in [(newest, ""), (oldest, " (as on older kernels)")] {
        let broker = host.broker(features);
        for case in all() {
            let name = format!("{}{label}", case.name);
            let chosen = words.is_empty() || words.iter().any(|word| name.contains(*word));
            let measured = case.only_on_request && !measures();
            if !chosen || measured || (features != newest && !case.depends_on_features) {
                continue;
            }
            print!("broker: {name} ... ");
            let _ = io::stdout().flush();
            let ok = host.run(&case, &broker);
            println!("{}", if ok { "ok" } else { "FAILED" });
            failed += usize::from(!ok);
        }
    }
    println!("broker: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Whether measurements are wanted, too.
fn measures() -> bool {
    std::env::var_os("BROKER_LATENCY").is_some()
}
