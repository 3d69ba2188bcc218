//! A mount of the attacker's between what is attacked and what that is mounted on.
//!
//! Linux 6.18 lets nothing be put beneath a locked mount. 7.2 does, and locks the lower mount in place of
//! the upper one, which can then be taken off: what was covered has to stay covered, and
//! what was read-only has to stay so wherever it is still seen. Nothing of the attacked mount itself is
//! left in its place afterwards, so these attempts come last.

use super::{Attempts, CWD, DETACH, MS_BIND, MS_REMOUNT, close, move_mount, new_tmpfs};
use crate::sys::{self, Answer, call};

/// Flags of move_mount: the source is the descriptor itself; beneath what is at the target.
const SOURCE_IS_DESCRIPTOR: u64 = 0x4;
const BENEATH: u64 = 0x200;

impl Attempts<'_> {
    /// All that can be done with it.
    pub fn beneath(&self) {
        for layer in ["one", "two"] {
            let put = self.put_beneath();
            self.judge(&format!("{layer} beneath"), put);
        }
        self.judge(
            "beneath, remount",
            self.mount(self.name(), self.name(), None, MS_REMOUNT | MS_BIND),
        );
        self.judge("beneath, mount_setattr", self.set_attributes(CWD, &self.goal.path, 0));
        // The attacked one, both lower ones, and whatever would be left.
        for layer in 1..=4 {
            let taken = self.umount(self.name(), DETACH);
            self.judge(&format!("beneath, umount {layer}"), taken);
            self.judge(
                "beneath, remount of what is seen now",
                self.mount(self.name(), self.name(), None, MS_REMOUNT | MS_BIND),
            );
        }
        self.copies();
        self.descriptors();
    }

    /// Puts a mount of the kind of the goal beneath it: a new tmpfs, or a copy of a file of the attacker's.
    fn put_beneath(&self) -> Answer {
        let source = if self.goal.is_directory {
            new_tmpfs(self.entry)
        } else {
            call(self.entry, sys::OPEN_TREE, &[CWD, super::str(&self.copy), 1])
        };
        let source = source?;
        let flags = SOURCE_IS_DESCRIPTOR | BENEATH;
        let put = move_mount(self.entry, source as u64, "", CWD, &self.goal.path, flags);
        close(source);
        put
    }
}
