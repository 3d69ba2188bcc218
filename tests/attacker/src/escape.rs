//! What an escape would start from: descriptors that were not closed, a working directory outside, the
//! runtime's own program.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use crate::report::{answer, breach};

/// A process that has just been started has standard input, output, error and nothing else; nothing of
/// it leads out of the container.
pub fn fresh() {
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let number: i32 = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        let is_listing = target.to_string_lossy().contains("/fd");
        answer(&format!("descriptor {number}"), target.display());
        if number > 2 && !is_listing {
            breach(&format!("descriptor {number} was left open: {}", target.display()));
        }
    }
    let cwd = std::env::current_dir();
    if cwd.as_ref().map_or(true, |dir| dir.starts_with("(unreachable)")) {
        breach(&format!("the working directory is outside: {cwd:?}"));
    }
    answer("working directory", cwd);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_default().trim().to_owned()
    };
    for set in ["CapInh:", "CapAmb:"] {
        // Container root's are full in its own user namespace; what is inheritable would be given to
        // programs with file capabilities (CVE-2022-29162).
        if line(set).chars().any(|digit| digit != '0') {
            breach(&format!("{set} {}", line(set)));
        }
    }
    answer("Seccomp, NoNewPrivs, CapEff", ["Seccomp:", "NoNewPrivs:", "CapEff:"].map(line));
    answer("parent", line("PPid:"));
}

/// The files that the kernel makes devices of must be what they are named.
pub fn layout() {
    let null = fs::metadata("/dev/null").map(|found| (found.mode() & libc::S_IFMT, found.rdev()));
    let is_null = matches!(null, Ok((libc::S_IFCHR, number)) if number == libc::makedev(1, 3));
    if !is_null {
        breach(&format!("/dev/null is something else: {null:?}"));
    }
    for path in ["/proc/keys", "/proc/timer_list"] {
        let found = fs::metadata(path).map(|found| (found.mode() & libc::S_IFMT, found.rdev()));
        answer(&format!("{path} (masked)"), &found);
        if let Ok((libc::S_IFCHR, number)) = found
            && number != libc::makedev(1, 3)
        {
            breach(&format!("{path} is masked by a device that is not /dev/null"));
        }
    }
    for (path, magic) in [("/proc", 0x9fa0_i64), ("/sys", 0x6265_6572)] {
        let name = std::ffi::CString::new(path).expect("text");
        // SAFETY: all-zero is a value of this plain struct, which the kernel fills.
        let mut found: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: a string and a struct that outlive the call.
        unsafe { libc::statfs(name.as_ptr(), &raw mut found) };
        if found.f_type != magic {
            breach(&format!("{path} is of type {:#x}", found.f_type));
        }
        answer(path, found.f_type);
    }
}

/// Waits for processes of the runtime that enter the container, and tries to open the program that they
/// run for writing (CVE-2019-5736).
pub fn catch_runtime(time: Duration) {
    let end = Instant::now() + time;
    let mut seen = 0_u32;
    while Instant::now() < end {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let exe = entry.path().join("exe");
            let Ok(target) = fs::read_link(&exe) else { continue };
            let name = target.to_string_lossy().into_owned();
            if !name.contains("sysbox") && !name.contains("runc") || name.contains("attacker") {
                continue;
            }
            seen += 1;
            let options = || {
                let mut options = fs::OpenOptions::new();
                options.write(true);
                options
            };
            let result = options().open(&exe).and_then(|mut file| file.write_all(b"#!/bin/sh\n"));
            if result.is_ok() {
                breach(&format!("wrote to the runtime's program {name}"));
            }
            // Once more, for when nobody runs it any more.
            if let Ok(kept) =
                fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&exe)
            {
                use std::os::fd::AsRawFd;
                let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
                for _ in 0..200 {
                    if options().open(&again).and_then(|mut f| f.write_all(b"#!")).is_ok() {
                        breach(&format!("wrote to the runtime's program {name} later"));
                    }
                }
            }
            answer(&name, result.map_err(|error| error.kind()));
        }
    }
    answer("times that the runtime was seen", seen);
}
