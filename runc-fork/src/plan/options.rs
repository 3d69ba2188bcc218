//! Mount options of the runtime-spec, as one table: what the words of `mounts[].options` mean in
//! `MOUNT_ATTR_*` bits, propagation, and flags that belong to the file system itself.

use linux_raw_sys::general as raw;
use sysbox_kernel::mount::Propagation;

/// What the kernel locks when a mount comes into a user namespace, besides the access-time mode.
pub const LOCKED: u64 = (raw::MOUNT_ATTR_RDONLY
    | raw::MOUNT_ATTR_NOSUID
    | raw::MOUNT_ATTR_NODEV
    | raw::MOUNT_ATTR_NOEXEC) as u64;
/// The access-time mode.
const TIMES: u64 = (raw::MOUNT_ATTR__ATIME | raw::MOUNT_ATTR_NODIRATIME) as u64;

/// Parsed options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `bind` or `rbind` was given.
    pub bind: bool,
    /// `rbind`: the whole tree of the source.
    pub recursive: bool,
    /// `MOUNT_ATTR_*` to set and to clear on the mount itself.
    pub attributes: (u64, u64),
    /// A word for such an attribute was given, if only one that says the default.
    pub changes: bool,
    /// The same for the whole tree (`rro`, `rnosuid`...).
    pub recursive_attributes: (u64, u64),
    /// Propagation asked for, and whether for the whole tree.
    pub propagation: Option<(Propagation, bool)>,
    /// `idmap` or `ridmap`; the flag tells whether recursive.
    pub idmap: Option<bool>,
    /// `tmpcopyup`: start a tmpfs with what the image has there.
    pub copy_up: bool,
    /// What is left: options of the file system, `key` or `key=value`.
    pub data: Vec<String>,
}

enum Meaning {
    Set(u32),
    Clear(u32),
    /// An access-time mode: clears the others.
    Atime(u32),
    /// Takes an access-time mode back. As mount(2) has no flag for that, it says nothing about a single
    /// mount; for a tree it means the kernel's default, `relatime`.
    NoAtimeMode,
    Propagation(Propagation, bool),
    Bind(bool),
    Idmap(bool),
    CopyUp,
    Ignore,
}

use Meaning::{Atime, Bind, Clear, CopyUp, Idmap, Ignore, NoAtimeMode, Set};

/// The words of runc's `specconv`, with their meaning. Words with a leading `r` for the recursive
/// attributes are derived (`rro` from `ro`).
const WORDS: &[(&str, Meaning)] = &[
    ("async", Ignore),
    ("defaults", Ignore),
    ("loud", Ignore),
    ("silent", Ignore),
    ("auto", Ignore),
    ("noauto", Ignore),
    ("remount", Ignore),
    ("ro", Set(raw::MOUNT_ATTR_RDONLY)),
    ("rw", Clear(raw::MOUNT_ATTR_RDONLY)),
    ("nosuid", Set(raw::MOUNT_ATTR_NOSUID)),
    ("suid", Clear(raw::MOUNT_ATTR_NOSUID)),
    ("nodev", Set(raw::MOUNT_ATTR_NODEV)),
    ("dev", Clear(raw::MOUNT_ATTR_NODEV)),
    ("noexec", Set(raw::MOUNT_ATTR_NOEXEC)),
    ("exec", Clear(raw::MOUNT_ATTR_NOEXEC)),
    ("nodiratime", Set(raw::MOUNT_ATTR_NODIRATIME)),
    ("diratime", Clear(raw::MOUNT_ATTR_NODIRATIME)),
    ("nosymfollow", Set(raw::MOUNT_ATTR_NOSYMFOLLOW)),
    ("symfollow", Clear(raw::MOUNT_ATTR_NOSYMFOLLOW)),
    ("relatime", Atime(raw::MOUNT_ATTR_RELATIME)),
    ("noatime", Atime(raw::MOUNT_ATTR_NOATIME)),
    ("strictatime", Atime(raw::MOUNT_ATTR_STRICTATIME)),
    ("norelatime", NoAtimeMode),
    ("atime", NoAtimeMode),
    ("nostrictatime", NoAtimeMode),
    ("bind", Bind(false)),
    ("rbind", Bind(true)),
    ("private", Meaning::Propagation(Propagation::Private, false)),
    ("rprivate", Meaning::Propagation(Propagation::Private, true)),
    ("slave", Meaning::Propagation(Propagation::Slave, false)),
    ("rslave", Meaning::Propagation(Propagation::Slave, true)),
    ("shared", Meaning::Propagation(Propagation::Shared, false)),
    ("rshared", Meaning::Propagation(Propagation::Shared, true)),
    ("unbindable", Meaning::Propagation(Propagation::Unbindable, false)),
    ("runbindable", Meaning::Propagation(Propagation::Unbindable, true)),
    ("idmap", Idmap(false)),
    ("ridmap", Idmap(true)),
    ("tmpcopyup", CopyUp),
    ("copyup", CopyUp),
];

impl MountOptions {
    /// Parses the options of one mount; words that are not in the table are the file system's.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut options = Self::default();
        for word in words {
            options.apply(word);
        }
        options
    }

    /// Every word that has a meaning here, for `features`.
    pub fn known_words() -> Vec<String> {
        let mut words: Vec<String> = WORDS.iter().map(|(word, _)| (*word).to_owned()).collect();
        let recursive =
            WORDS.iter().filter(|(_, m)| matches!(m, Set(_) | Clear(_) | Atime(_) | NoAtimeMode));
        words.extend(recursive.map(|(word, _)| format!("r{word}")));
        words.sort();
        words
    }

    fn apply(&mut self, word: &str) {
        let find = |word: &str| WORDS.iter().find(|(name, _)| *name == word).map(|(_, m)| m);
        let (meaning, recursive) = match find(word) {
            Some(meaning) => (meaning, false),
            None => match word.strip_prefix('r').and_then(find) {
                Some(meaning @ (Set(_) | Clear(_) | Atime(_) | NoAtimeMode)) => (meaning, true),
                _ => return self.data.push(word.to_owned()),
            },
        };
        if !recursive && matches!(meaning, Set(_) | Clear(_) | Atime(_)) {
            self.changes = true;
        }
        let (set, clear) = if recursive {
            (&mut self.recursive_attributes.0, &mut self.recursive_attributes.1)
        } else {
            (&mut self.attributes.0, &mut self.attributes.1)
        };
        match *meaning {
            Set(bit) => {
                *set |= u64::from(bit);
                *clear &= !u64::from(bit);
            }
            Clear(bit) => {
                *clear |= u64::from(bit);
                *set &= !u64::from(bit);
            }
            Atime(mode) => {
                *clear |= u64::from(raw::MOUNT_ATTR__ATIME);
                *set = *set & !u64::from(raw::MOUNT_ATTR__ATIME) | u64::from(mode);
            }
            NoAtimeMode if recursive => {
                *clear |= u64::from(raw::MOUNT_ATTR__ATIME);
                *set &= !u64::from(raw::MOUNT_ATTR__ATIME);
            }
            NoAtimeMode => self.changes = true,
            Bind(rec) => {
                self.bind = true;
                self.recursive |= rec;
            }
            Meaning::Propagation(kind, rec) => self.propagation = Some((kind, rec)),
            Idmap(rec) => self.idmap = Some(rec),
            CopyUp => self.copy_up = true,
            Ignore => {}
        }
    }

    /// The attributes of a mount by what mountinfo says of it.
    pub fn attributes_of(shown: &str) -> u64 {
        let attributes = Self::parse(shown.split(',')).attributes.0;
        let has_mode = shown.split(',').any(|word| word == "noatime" || word == "relatime");
        attributes | if has_mode { 0 } else { u64::from(raw::MOUNT_ATTR_STRICTATIME) }
    }

    /// Whether a bind mount is to lose what the kernel locks in a user namespace, of what its source
    /// has: one of [`LOCKED`] that is named, or the access-time mode.
    pub fn breaks_locks(&self, source: u64) -> bool {
        let (set, clear) = self.of_bind(LOCKED);
        let result = source & !clear | set;
        source & !result & LOCKED != 0 || (source ^ result) & TIMES != 0
    }

    /// What a bind mount is to have, of what its source has: as runc, all of the attributes once one of
    /// them is named, like mount(8) with `remount,bind`. `locked` are those that the source keeps unless
    /// they are named (a user namespace could not take them off).
    pub fn of_bind(&self, locked: u64) -> (u64, u64) {
        const PLAIN: u32 = raw::MOUNT_ATTR_RDONLY
            | raw::MOUNT_ATTR_NOSUID
            | raw::MOUNT_ATTR_NODEV
            | raw::MOUNT_ATTR_NOEXEC
            | raw::MOUNT_ATTR_NOSYMFOLLOW;
        let (set, clear) = self.attributes;
        if !self.changes {
            return (set, clear);
        }
        let mut clear = clear & !TIMES | u64::from(PLAIN) & !set & !locked;
        // The times stay as they are unless one of their words is there; `strictatime` and the like set
        // no bit that `set` would show, but clear the mode.
        if self.attributes.1 & u64::from(raw::MOUNT_ATTR__ATIME) != 0 || set & TIMES != 0 {
            clear |= TIMES & !(set & u64::from(raw::MOUNT_ATTR_NODIRATIME));
        }
        (set, clear)
    }

    /// `ro` without a later `rw`.
    pub fn read_only(&self) -> bool {
        self.attributes.0 & u64::from(raw::MOUNT_ATTR_RDONLY) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_attributes_and_the_rest_data() {
        let o = MountOptions::parse(["nosuid", "ro", "rw", "mode=755", "noatime", "rnodev"]);
        assert_eq!(o.attributes.0, u64::from(raw::MOUNT_ATTR_NOSUID | raw::MOUNT_ATTR_NOATIME));
        assert!(!o.read_only());
        assert_eq!(o.recursive_attributes.0, u64::from(raw::MOUNT_ATTR_NODEV));
        assert_eq!(o.data, ["mode=755"]);
    }

    #[test]
    fn one_named_attribute_decides_all_of_a_bind_mount() {
        let bits = |names: &[u32]| names.iter().fold(0, |all, bit| all | u64::from(*bit));
        let plain = bits(&[
            raw::MOUNT_ATTR_NOSUID,
            raw::MOUNT_ATTR_NODEV,
            raw::MOUNT_ATTR_NOEXEC,
            raw::MOUNT_ATTR_NOSYMFOLLOW,
        ]);
        let times = bits(&[raw::MOUNT_ATTR__ATIME, raw::MOUNT_ATTR_NODIRATIME]);
        let read_only = bits(&[raw::MOUNT_ATTR_RDONLY]);
        for (words, expected) in [
            (vec!["bind"], (0, 0)),
            (vec!["bind", "ro"], (read_only, plain)),
            (vec!["bind", "atime"], (0, plain | read_only)),
            (vec!["bind", "relatime"], (0, plain | read_only | times)),
            (vec!["rbind", "rro"], (0, 0)),
        ] {
            assert_eq!(
                MountOptions::parse(words.iter().copied()).of_bind(0),
                expected,
                "{words:?}"
            );
        }
        let keeps = MountOptions::parse(["bind", "ro"]).of_bind(plain);
        assert_eq!(keeps, (read_only, 0));
    }

    #[test]
    fn what_a_user_namespace_locks_cannot_be_named_away() {
        for (source, words, breaks) in [
            ("ro,relatime", "bind,nosuid", false),
            ("ro,relatime", "bind,rw", true),
            ("rw,nodev,noatime", "bind,ro,exec", false),
            ("rw,nodev,noatime", "bind,dev", true),
            ("rw", "bind,nostrictatime", false),
            ("rw", "bind,nodiratime", true),
            ("rw", "bind,relatime", true),
            ("rw,relatime", "bind,norelatime", false),
            ("rw,relatime", "bind,strictatime", true),
            ("rw,nodiratime,relatime", "bind,diratime", false),
            ("rw,nodiratime,relatime", "bind,noatime", true),
            ("rw,noatime", "bind,noatime", false),
        ] {
            let options = MountOptions::parse(words.split(','));
            let source_has = MountOptions::attributes_of(source);
            assert_eq!(options.breaks_locks(source_has), breaks, "{source}: {words}");
        }
    }

    #[test]
    fn bind_and_propagation_words_are_no_recursive_attributes() {
        let o = MountOptions::parse(["rbind", "rslave", "rro"]);
        assert!(o.bind && o.recursive);
        assert_eq!(o.propagation, Some((Propagation::Slave, true)));
        assert_eq!(o.recursive_attributes.0, u64::from(raw::MOUNT_ATTR_RDONLY));
        assert!(o.data.is_empty());
    }
}
