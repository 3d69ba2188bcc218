//! Where an attack is made from: the container's own namespaces, copies of them, nested ones.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::goal::Goal;
use crate::locked::Attempts;
use crate::report::{answer, in_child};
use crate::sys::{self, Entry, call, text};

const NEWNS: u64 = 0x0002_0000;
const NEWUSER: u64 = 0x1000_0000;

/// Makes every attempt on every goal from every place.
pub fn attack(goals: &[Goal]) {
    let each = |goals: &[Goal], attempt: &dyn Fn(Attempts)| {
        for goal in goals {
            for entry in [Entry::Native, Entry::I386] {
                attempt(Attempts::new(goal, entry));
            }
        }
    };
    let everything = |goals: &[Goal]| {
        each(goals, &|attempts| attempts.run());
        // On a copy: what this leaves would be in the way of all that follows.
        in_child("beneath, in a copy of that mount namespace", || {
            let copied = call(Entry::Native, sys::UNSHARE, &[NEWNS]);
            answer("unshare", copied);
            if copied.is_ok() {
                each(goals, &|attempts| attempts.beneath());
            }
        });
    };
    in_child("in the container's own namespaces", || everything(goals));
    in_child("in a copy of the mount namespace", || {
        answer("unshare", call(Entry::Native, sys::UNSHARE, &[NEWNS]));
        everything(goals);
    });
    in_child("in a copy of a shared tree", || {
        let shared =
            call(Entry::Native, sys::MOUNT, &[0, text(Some("/")), 0, (1 << 20) | 0x4000, 0]);
        answer("make everything shared", shared);
        answer("unshare", call(Entry::Native, sys::UNSHARE, &[NEWNS]));
        everything(goals);
    });
    in_child("in a nested user namespace", || {
        nest();
        everything(goals);
    });
    in_child("in a nested user namespace, of a nested user namespace", || {
        nest();
        nest();
        everything(goals);
    });
    in_child("after setns to the mount namespace of init", || {
        setns("/proc/1/ns/mnt");
        everything(goals);
    });
    in_child("nested, after setns to the mount namespace of init", || {
        nest();
        setns("/proc/1/ns/mnt");
        everything(goals);
    });
    in_child("after pivot_root into a copy of everything", || {
        answer("unshare", call(Entry::Native, sys::UNSHARE, &[NEWNS]));
        fs::create_dir_all("/tmp/pivot").expect("mkdir");
        let (root, pivot) = (text(Some("/")), text(Some("/tmp/pivot")));
        answer("rbind of /", call(Entry::Native, sys::MOUNT, &[root, pivot, 0, 0x5000, 0]));
        answer("chdir", call(Entry::Native, sys::CHDIR, &[pivot]));
        let here = text(Some("."));
        answer("pivot_root", call(Entry::Native, sys::PIVOT_ROOT, &[here, here]));
        answer("umount of the old root", call(Entry::Native, sys::UMOUNT2, &[here, 2]));
        answer("chdir", call(Entry::Native, sys::CHDIR, &[root]));
        everything(goals);
    });
    in_child("in a chroot", || {
        fs::create_dir_all("/tmp/pivot").expect("mkdir");
        let (root, pivot) = (text(Some("/")), text(Some("/tmp/pivot")));
        answer("rbind of /", call(Entry::Native, sys::MOUNT, &[root, pivot, 0, 0x5000, 0]));
        answer("chroot", call(Entry::Native, sys::CHROOT, &[pivot]));
        everything(goals);
        answer("chdir", call(Entry::Native, sys::CHDIR, &[text(Some(".."))]));
    });
    in_child("while a thread changes the path", || race(goals));
    in_child("beneath, in the container's own namespaces", || {
        each(goals, &|attempts| attempts.beneath());
    });
}

/// A user namespace below the one that the process is in, with a mount namespace of its own.
fn nest() {
    let (uid, gid) = ids();
    answer("unshare -Urm", call(Entry::Native, sys::UNSHARE, &[NEWUSER | NEWNS]));
    // The files below belong to the process only while it is "dumpable", which the call ended.
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    for (file, line) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        answer(file, fs::write(format!("/proc/self/{file}"), line).map_err(|error| error.kind()));
    }
}

fn ids() -> (u32, u32) {
    // SAFETY: these take nothing and always succeed.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn setns(path: &str) {
    use std::os::fd::AsRawFd;
    match fs::File::open(path) {
        Ok(file) => {
            answer(path, call(Entry::Native, sys::SETNS, &[file.as_raw_fd() as u64, NEWNS]));
        }
        Err(error) => answer(path, error.kind()),
    }
}

/// Calls that the broker serves, with a path that becomes another one under its eyes.
fn race(goals: &[Goal]) {
    const ROUNDS: usize = 300;
    for goal in goals {
        let target = &goal.path;
        // Two texts of one length, one after the other in the same memory.
        let harmless = format!("/tmp/{}", "h".repeat(target.len().saturating_sub(5)));
        let _ = fs::create_dir_all(&harmless);
        let at = sys::low(&harmless);
        let stop = AtomicBool::new(false);
        let mut answers = [0_u32; 2];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let texts = [target.as_bytes(), harmless.as_bytes()];
                for text in texts.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    for (offset, &byte) in text.iter().enumerate().take(harmless.len()) {
                        // SAFETY: within the string that `low` made; whoever reads it meanwhile
                        // is the kernel.
                        unsafe { std::ptr::write_volatile((at as *mut u8).add(offset), byte) };
                    }
                }
            });
            for _ in 0..ROUNDS {
                let kind = text(Some("proc"));
                let mounted = call(Entry::Native, sys::MOUNT, &[kind, at, kind, 0, 0]);
                let gone = call(Entry::Native, sys::UMOUNT2, &[at, 0]);
                answers[usize::from(mounted.is_ok())] += 1;
                let _ = gone;
            }
            stop.store(true, Ordering::Relaxed);
        });
        // What was mounted at one of the two and not found again.
        for place in [text(Some(&harmless)), text(Some(target))] {
            while call(Entry::Native, sys::UMOUNT2, &[place, 2]).is_ok() {}
        }
        answer(&format!("mount and umount of a changing path, {target}"), answers);
        Attempts::new(goal, Entry::Native).run();
    }
}
