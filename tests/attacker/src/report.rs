//! What an attack tells: a line for each attempt with the answer of the kernel, and `BREACH` for what
//! must not have worked.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};

static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
static BREACHES: AtomicU32 = AtomicU32::new(0);

/// An attempt that may well be answered with success: what it was good for is looked at elsewhere.
pub fn answer(attempt: &str, answer: impl Debug) {
    ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    println!("{attempt}: {answer:?}");
}

/// An attempt that must fail.
pub fn refused<T: Debug, E: Debug>(attempt: &str, result: Result<T, E>) {
    if result.is_ok() {
        breach(attempt);
    }
    answer(attempt, result);
}

/// Something worked that must not.
pub fn breach(what: &str) {
    BREACHES.fetch_add(1, Ordering::Relaxed);
    println!("BREACH {what}");
}

/// The last line of this process.
pub fn end() -> ! {
    let breaches = BREACHES.load(Ordering::Relaxed);
    println!("{} attempts, {breaches} breaches", ATTEMPTS.load(Ordering::Relaxed));
    std::process::exit(if breaches == 0 { 0 } else { 3 })
}

/// Runs `work` in a child process, so that what it does to its namespaces ends with it.
pub fn in_child(what: &str, work: impl FnOnce()) {
    use std::io::Write;
    println!("--- {what}");
    let _ = std::io::stdout().flush();
    // SAFETY: this program has one thread when it forks: threads are joined before.
    let child = unsafe { libc::fork() };
    if child == 0 {
        ATTEMPTS.store(0, Ordering::Relaxed);
        BREACHES.store(0, Ordering::Relaxed);
        work();
        end();
    }
    let mut status = 0;
    // SAFETY: waits for our child; the status is live.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    ATTEMPTS.fetch_add(1, Ordering::Relaxed);
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => {}
        3 => {
            BREACHES.fetch_add(1, Ordering::Relaxed);
        }
        _ => breach(&format!("the attacker itself broke in '{what}': status {status:#x}")),
    }
}
