//! The attacker in a container, and its findings.

use std::path::PathBuf;

use sysbox_tests::{BOOKWORM, Container, Output};

/// Where the attacker is in the container.
pub const ATTACKER: &str = "/attacker";

/// The program on the host: cargo puts it beside the directory of the test programs.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this test");
    let program = own.ancestors().nth(2).expect("a directory above").join("sysbox-attacker");
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    program
}

/// The mount that brings it into a container.
pub fn volume() -> String {
    format!("{}:{ATTACKER}:ro", program().display())
}

/// A container that has it.
pub fn container() -> Container {
    Container::new(BOOKWORM).args(["--volume", &volume()])
}

/// Tells what was tried and fails if something worked that must not. Returns the transcript.
#[track_caller]
pub fn judge(output: Output, least: u32) -> String {
    println!("{output}");
    let text = output.stdout.clone();
    let breaches: Vec<&str> = text.lines().filter(|line| line.starts_with("BREACH")).collect();
    assert!(breaches.is_empty(), "this worked and must not:\n{}", breaches.join("\n"));
    assert!(output.success(), "the attacker did not get to its end");
    let last = text.lines().last().unwrap_or_default();
    let attempts: u32 = last.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(attempts >= least, "only {attempts} attempts were made, {least} expected: {last}");
    text
}
