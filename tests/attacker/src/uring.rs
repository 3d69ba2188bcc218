//! The same goals by way of io_uring, whose operations no seccomp filter sees.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use io_uring::squeue::Flags;
use io_uring::{IoUring, Probe, opcode, types};

use crate::goal::{Goal, Wanted};
use crate::report::{answer, breach};
use crate::sys::{Answer, Errno};

/// What the kernel calls "from the working directory".
const HERE: types::Fd = types::Fd(libc::AT_FDCWD);

/// Tries every operation that could touch a goal, by the calling thread and by the kernel's workers.
pub fn attack(goals: &[Goal]) {
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return answer("io_uring_setup", error.kind()),
    };
    let mut probe = Probe::new();
    let known = ring.submitter().register_probe(&mut probe).is_ok();
    let operations = (0..=u8::MAX).filter(|&code| probe.is_supported(code)).count();
    answer("operations that this kernel has", (known, operations));
    for goal in goals {
        for flags in [Flags::empty(), Flags::ASYNC] {
            match &goal.wanted {
                Wanted::Write => write(&mut ring, Path::new(&goal.path), flags),
                Wanted::See { hidden } => see(&mut ring, &goal.path, hidden, flags),
            }
        }
    }
}

/// Submits one operation and waits for it. The strings that it names outlive the call.
fn submit(ring: &mut IoUring, entry: &io_uring::squeue::Entry, flags: Flags) -> Answer {
    // SAFETY: the strings and structures that the entry points to are the caller's, who waits here
    // until the operation is done.
    unsafe { ring.submission().push(&entry.clone().flags(flags)) }.expect("room in the ring");
    ring.submit_and_wait(1).expect("waiting for an operation");
    let result = ring.completion().next().expect("a result").result();
    if result < 0 { Err(Errno(-result)) } else { Ok(result.into()) }
}

fn text(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero byte")
}

fn write(ring: &mut IoUring, dir: &Path, flags: Flags) {
    let new = dir.join(format!("uring-{}", std::process::id()));
    let old = dir.join("file");
    let (new_text, old_text, dir_text) = (text(&new), text(&old), text(dir));
    let elsewhere = CString::new(format!("/tmp/uring-{}", std::process::id())).expect("text");
    let (name, value) = (c"user.attack", c"1");
    let create = types::OpenHow::new().flags((libc::O_WRONLY | libc::O_CREAT) as u64).mode(0o666);
    let [new_at, old_at, dir_at, else_at] =
        [&new_text, &old_text, &dir_text, &elsewhere].map(|text| text.as_ptr());
    for (what, entry) in [
        (
            "openat",
            opcode::OpenAt::new(HERE, new_at)
                .flags(libc::O_WRONLY | libc::O_CREAT)
                .mode(0o666)
                .build(),
        ),
        ("openat2", opcode::OpenAt2::new(HERE, new_at, &raw const create).build()),
        (
            "openat of a file to write",
            opcode::OpenAt::new(HERE, old_at).flags(libc::O_WRONLY).build(),
        ),
        (
            "openat without a name",
            opcode::OpenAt::new(HERE, dir_at)
                .flags(libc::O_WRONLY | libc::O_TMPFILE)
                .mode(0o600)
                .build(),
        ),
        ("mkdirat", opcode::MkDirAt::new(HERE, new_at).mode(0o777).build()),
        ("symlinkat", opcode::SymlinkAt::new(HERE, old_at, new_at).build()),
        ("linkat", opcode::LinkAt::new(HERE, old_at, HERE, new_at).build()),
        ("renameat", opcode::RenameAt::new(HERE, old_at, HERE, new_at).build()),
        ("renameat to elsewhere", opcode::RenameAt::new(HERE, old_at, HERE, else_at).build()),
        ("unlinkat", opcode::UnlinkAt::new(HERE, old_at).build()),
        (
            "setxattr",
            opcode::SetXattr::new(name.as_ptr(), value.as_ptr().cast(), old_at, 1).build(),
        ),
    ] {
        let result = submit(ring, &entry, flags);
        let done = fs::symlink_metadata(&new).is_ok() || result.is_ok();
        let what = format!("io_uring {what} in {} ({flags:?})", dir.display());
        if done {
            breach(&what);
        }
        answer(&what, result);
    }
}

fn see(ring: &mut IoUring, path: &str, hidden: &str, flags: Flags) {
    let path = text(Path::new(path));
    let opened = submit(ring, &opcode::OpenAt::new(HERE, path.as_ptr()).build(), flags);
    let mut found = String::new();
    if let Ok(number) = opened {
        // SAFETY: the descriptor is new, and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(number as i32) };
        let _ = fs::File::from(file).read_to_string(&mut found);
    }
    if found.contains(hidden) {
        breach(&format!("io_uring openat of {path:?} shows what is hidden"));
    }
    answer(&format!("io_uring openat of {path:?} ({flags:?})"), opened);
}
