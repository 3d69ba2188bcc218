//! Every way known to make a read-only mount writable, or to see what a mount hides.
//!
//! Each attempt is judged by what it is for: afterwards the attacker tries to write to the very file
//! system that is read-only, or looks for the hidden text, at the place itself and wherever the attempt
//! may have put a copy. What the kernel answered on the way is only told.

mod beneath;
mod namespaces;

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::goal::{Goal, Wanted};
use crate::report::{answer, breach};
use crate::sys::{self, Answer, CWD, Entry, call, text};

/// Attempts on one goal, from wherever the process is.
pub struct Attempts<'a> {
    goal: &'a Goal,
    entry: Entry,
    /// Where copies go: a directory or a file, as the goal is.
    copy: PathBuf,
    /// Where copies of the directory above go.
    above: PathBuf,
}

const MS_RDONLY: u64 = 1;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
const MS_MOVE: u64 = 0x2000;
const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SHARED: u64 = 1 << 20;
const MAGIC: u64 = 0xc0ed_0000;
const DETACH: u64 = 2;
const EXPIRE: u64 = 4;
const NOFOLLOW: u64 = 8;
const RECURSIVE: u64 = 0x8000;
const EMPTY_PATH: u64 = 0x1000;

impl<'a> Attempts<'a> {
    /// Makes the places for copies.
    pub fn new(goal: &'a Goal, entry: Entry) -> Self {
        let scratch = PathBuf::from(format!("/tmp/attack-{}", std::process::id()));
        let above = scratch.join("above");
        fs::create_dir_all(&above).expect("a directory for copies");
        let copy = scratch.join(if goal.is_directory { "directory" } else { "file" });
        if goal.is_directory {
            fs::create_dir_all(&copy).expect("a directory for copies");
        } else {
            fs::write(&copy, "").expect("a file for copies");
        }
        Self { goal, entry, copy, above }
    }

    fn name(&self) -> &Path {
        Path::new(&self.goal.path)
    }

    fn parent(&self) -> &Path {
        self.name().parent().unwrap_or(self.name())
    }

    /// Its place below a copy of the parent.
    fn inner(&self, above: &Path) -> PathBuf {
        above.join(self.name().file_name().unwrap_or_default())
    }

    /// All of them. The goal is looked for after each.
    pub fn run(&self) {
        self.unmount();
        self.remount();
        self.copies();
        self.descriptors();
        self.namespaces();
        self.file_systems();
        self.links();
    }

    /// Tells the answer, looks for the goal, and clears the copies away.
    fn judge(&self, what: &str, result: Answer) {
        let goal = self.name();
        let inner = self.inner(&self.above);
        let what = format!("{what} {} ({:?})", goal.display(), self.entry);
        for place in [goal, &self.copy, &inner] {
            if self.goal.is_reached_at(place) {
                breach(&format!("{what}: reached at {}", place.display()));
            }
        }
        answer(&what, result);
        for place in [&self.copy, &self.above] {
            while self.umount(place, DETACH).is_ok() {}
        }
    }

    fn mount(&self, from: &Path, to: &Path, kind: Option<&str>, flags: u64) -> Answer {
        let args = [str(from), str(to), text(kind), flags, 0];
        call(self.entry, sys::MOUNT, &args)
    }

    fn umount(&self, at: &Path, flags: u64) -> Answer {
        call(self.entry, sys::UMOUNT2, &[str(at), flags])
    }

    fn set_attributes(&self, dir: u64, path: &str, flags: u64) -> Answer {
        set_attributes(self.entry, dir, path, flags)
    }

    fn unmount(&self) {
        for flags in [0, DETACH, 1, EXPIRE, EXPIRE, NOFOLLOW, DETACH | NOFOLLOW] {
            self.judge(&format!("umount2 flags {flags}"), self.umount(self.name(), flags));
        }
        self.judge("move", self.mount(self.name(), &self.copy, None, MS_MOVE));
        self.judge("move the parent", self.mount(self.parent(), &self.above, None, MS_MOVE));
        let twice = self.mount(Path::new("none"), self.name(), Some("tmpfs"), 0);
        let _ = self.umount(self.name(), 0);
        self.judge("cover by a tmpfs, umount twice", twice.and(self.umount(self.name(), 0)));
    }

    fn remount(&self) {
        let none = Path::new("none");
        for flags in [0, MS_BIND, MS_BIND | MAGIC, MS_BIND | MS_REC, 0x8000, MS_BIND | (1 << 24)] {
            let what = format!("remount flags {:#x}", flags | MS_REMOUNT);
            self.judge(&what, self.mount(none, self.name(), None, flags | MS_REMOUNT));
        }
        for flags in [0, RECURSIVE] {
            let result = self.set_attributes(CWD, &self.goal.path, flags);
            self.judge(&format!("mount_setattr flags {flags:#x}"), result);
        }
        self.judge("mount_setattr of all", self.set_attributes(CWD, "/", RECURSIVE));
        for kind in [MS_SHARED, MS_PRIVATE] {
            let _ = self.mount(none, self.name(), None, kind);
            let result = self.mount(none, self.name(), None, MS_REMOUNT | MS_BIND);
            self.judge(&format!("propagation {kind:#x}, remount"), result);
        }
    }

    fn copies(&self) {
        let root = Path::new("/");
        for rec in [0, MS_REC] {
            let flags = MS_BIND | rec;
            let bound = self.mount(self.name(), &self.copy, None, flags);
            self.judge(&format!("bind flags {flags:#x}"), bound);
            let _ = self.mount(self.name(), &self.copy, None, flags);
            let remounted = self.mount(root, &self.copy, None, MS_REMOUNT | MS_BIND);
            self.judge("bind, remount of the copy", remounted);
            let _ = self.mount(self.name(), &self.copy, None, flags);
            self.judge(
                "bind, mount_setattr",
                self.set_attributes(CWD, utf8(&self.copy), RECURSIVE),
            );
            let bound = self.mount(self.parent(), &self.above, None, flags);
            self.judge(&format!("bind of the parent, flags {flags:#x}"), bound);
            let _ = self.mount(self.parent(), &self.above, None, flags);
            let inner = self.inner(&self.above);
            let off = self.umount(&inner, DETACH);
            self.judge("bind of the parent, umount in the copy", off);
        }
    }

    fn descriptors(&self) {
        const CLONE: u64 = 1;
        for rec in [0, RECURSIVE] {
            let tree =
                |path: &Path| call(self.entry, sys::OPEN_TREE, &[CWD, str(path), CLONE | rec]);
            for (path, to) in [(self.name(), &self.copy), (self.parent(), &self.above)] {
                let what = format!("open_tree {rec:#x} of {}", path.display());
                let opened = tree(path);
                let Ok(fd) = opened else {
                    self.judge(&what, opened);
                    continue;
                };
                let place = PathBuf::from(format!("/proc/self/fd/{fd}"));
                let inner = self.inner(&place);
                let changed = self.set_attributes(fd as u64, "", EMPTY_PATH | rec);
                for seen in [&place, &inner] {
                    if self.goal.is_reached_at(seen) {
                        breach(&format!("{what}: reached through the descriptor"));
                    }
                }
                answer(&format!("{what}, mount_setattr"), changed);
                let _ = self.umount(&inner, DETACH);
                let moved = move_mount(self.entry, fd as u64, "", CWD, utf8(to), 4);
                self.judge(&format!("{what}, move_mount"), moved);
                close(fd);
            }
        }
        let moved = move_mount(self.entry, CWD, &self.goal.path, CWD, utf8(&self.copy), 0);
        self.judge("move_mount", moved);
    }

    fn file_systems(&self) {
        let picked = call(self.entry, sys::FSPICK, &[CWD, text(Some(&self.goal.path)), 1]);
        let result = picked.and_then(|fd| {
            let flag = call(self.entry, sys::FSCONFIG, &[fd as u64, 0, text(Some("rw")), 0, 0]);
            let done = call(self.entry, sys::FSCONFIG, &[fd as u64, 7, 0, 0, 0]);
            close(fd);
            flag.and(done)
        });
        self.judge("fspick, rw, reconfigure", result);
        let lower = format!("lowerdir={0}:{0}", utf8(self.parent()));
        let args =
            [text(Some("o")), str(&self.above), text(Some("overlay")), 0, text(Some(&lower))];
        self.judge("overlay of the parent", call(self.entry, sys::MOUNT, &args));
        let lower = format!("lowerdir=/,upperdir={0},workdir={0}", utf8(&self.above));
        let args =
            [text(Some("o")), str(&self.above), text(Some("overlay")), 0, text(Some(&lower))];
        self.judge("overlay with an upper", call(self.entry, sys::MOUNT, &args));
    }

    /// Paths that lead to the same thing another way.
    fn links(&self) {
        let Wanted::Write = self.goal.wanted else { return };
        let path = &self.goal.path;
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path);
        let fd = opened.expect("a directory that one may see");
        for way in [
            format!("/proc/self/fd/{}", fd.as_raw_fd()),
            format!("/proc/1/root{path}"),
            format!("/proc/self/root{path}"),
            format!("/proc/thread-self/root/proc/self/root{path}"),
        ] {
            if self.goal.is_reached_at(Path::new(&way)) {
                breach(&format!("writable through {way}"));
            }
            answer(&format!("write through {way}"), "refused");
        }
    }
}

fn set_attributes(entry: Entry, dir: u64, path: &str, flags: u64) -> Answer {
    // struct mount_attr: set, clear, propagation, namespace descriptor.
    let attributes: [u64; 4] = [0, MS_RDONLY | 2 | 4 | 8, 0, 0];
    let bytes: Vec<u8> = attributes.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let at = low_bytes(&bytes);
    call(entry, sys::MOUNT_SETATTR, &[dir, text(Some(path)), flags, at, 32])
}

fn move_mount(entry: Entry, from: u64, path: &str, to: u64, target: &str, flags: u64) -> Answer {
    call(entry, sys::MOVE_MOUNT, &[from, text(Some(path)), to, text(Some(target)), flags])
}

fn new_tmpfs(entry: Entry) -> Answer {
    let context = call(entry, sys::FSOPEN, &[text(Some("tmpfs")), 1])?;
    call(entry, sys::FSCONFIG, &[context as u64, 6, 0, 0, 0])?;
    let mount = call(entry, sys::FSMOUNT, &[context as u64, 1, 0]);
    close(context);
    mount
}

fn close(fd: i64) {
    let _ = call(Entry::Native, sys::CLOSE, &[fd.cast_unsigned()]);
}

/// Bytes at a low address; strings there end with a zero, which does no harm after them.
fn low_bytes(bytes: &[u8]) -> u64 {
    let at = sys::low(&"-".repeat(bytes.len() + 8)).next_multiple_of(8);
    // SAFETY: the place was reserved for this string alone, and is a few bytes longer.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    at
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn str(path: &Path) -> u64 {
    text(Some(utf8(path)))
}
