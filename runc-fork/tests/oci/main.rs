//! The real binary on bundles made of busybox, with a manager and a `sysbox-fs` of the test's own.
//!
//! The test is a program without libtest: it moves into a mount namespace of its own before there is
//! a second thread, starts the daemons, runs the cases one after the other, and takes everything
//! away. Needs root; the daemons' programs lie beside the runtime's (`cargo test --workspace` and
//! `cargo build --workspace` put them there).

mod bundle;
mod commands;
mod compat;
mod console;
mod hooks;
mod idmap;
mod mounts;
mod namespaces;
mod process;
mod rdt;
mod state;
mod suite;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use world::World;

/// A case and its name.
type Case = (&'static str, fn(&World));

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let cases: Vec<Case> = [
        commands::CASES,
        compat::CASES,
        console::CASES,
        hooks::CASES,
        idmap::CASES,
        mounts::CASES,
        namespaces::CASES,
        process::CASES,
        rdt::CASES,
        state::CASES,
        suite::CASES,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str())))
    .collect();
    if words.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("test result: ok. 0 passed; 0 failed; {} ignored (needs root)", cases.len());
        return ExitCode::SUCCESS;
    }
    let world = World::start();
    let failed: Vec<&str> = cases.iter().filter(|case| !run(&world, case)).map(|c| c.0).collect();
    if !failed.is_empty() {
        println!("failed: {failed:?}\n{}", world.logs());
    }
    drop(world);
    let (result, count) = (if failed.is_empty() { "ok" } else { "FAILED" }, failed.len());
    println!("test result: {result}. {} passed; {count} failed; 0 ignored", cases.len() - count);
    ExitCode::from(u8::from(!failed.is_empty()))
}

fn run(world: &World, (name, case): &Case) -> bool {
    let start = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| case(world))).is_ok();
    world.clean_up();
    let word = if passed { "ok" } else { "FAILED" };
    println!("test {name} ... {word} ({} ms)", start.elapsed().as_millis());
    passed
}
