//! A mount namespace that has nothing but the goal, or what it is in: `open_tree` makes one in Linux 7.2,
//! and not yet in 6.18.

use std::path::{Path, PathBuf};

use super::{Attempts, CWD, DETACH, MS_BIND, MS_REMOUNT, RECURSIVE, close, str};
use crate::report::{answer, breach, in_child};
use crate::sys::{self, Entry, call};

/// `OPEN_TREE_NAMESPACE`.
const NAMESPACE: u64 = 2;
const CLONE_NEWNS: u64 = 0x2_0000;

impl Attempts<'_> {
    /// Makes them, enters them, and attacks what is there.
    pub fn namespaces(&self) {
        let inner = self.inner(Path::new("/"));
        for recursive in [0, RECURSIVE] {
            for (from, goal) in [(self.name(), PathBuf::from("/")), (self.parent(), inner.clone())]
            {
                let what = format!("a namespace {recursive:#x} of {}", from.display());
                let flags = NAMESPACE | recursive;
                match call(self.entry, sys::OPEN_TREE, &[CWD, str(from), flags]) {
                    Ok(namespace) => {
                        in_child(&what, || self.in_namespace(namespace, &goal));
                        close(namespace);
                    }
                    refused => answer(&what, refused),
                }
            }
        }
    }

    fn in_namespace(&self, namespace: i64, goal: &Path) {
        let entered = call(Entry::Native, sys::SETNS, &[namespace.cast_unsigned(), CLONE_NEWNS]);
        answer("setns", entered);
        if entered.is_err() {
            return;
        }
        let look = |what: &str| {
            if self.goal.is_reached_at(goal) {
                breach(&format!("{what} in a namespace of {} alone", self.name().display()));
            }
        };
        look("there");
        answer("remount", self.mount(goal, goal, None, MS_REMOUNT | MS_BIND));
        look("remount");
        for flags in [0, RECURSIVE] {
            answer("mount_setattr", self.set_attributes(CWD, super::utf8(goal), flags));
            look("mount_setattr");
        }
        answer("umount", self.umount(goal, DETACH));
        look("umount");
    }
}
