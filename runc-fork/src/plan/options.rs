//! Mount options of the runtime-spec, as one table: what the words of `mounts[].options` mean in
//! `MOUNT_ATTR_*` bits, propagation, and flags that belong to the file system itself.

use linux_raw_sys::general as raw;
use sysbox_kernel::mount::Propagation;

/// Parsed options of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `bind` or `rbind` was given.
    pub bind: bool,
    /// `rbind`: the whole tree of the source.
    pub recursive: bool,
    /// `MOUNT_ATTR_*` to set and to clear on the mount itself.
    pub attributes: (u64, u64),
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
    Propagation(Propagation, bool),
    Bind(bool),
    Idmap(bool),
    CopyUp,
    Ignore,
}

use Meaning::{Atime, Bind, Clear, CopyUp, Idmap, Ignore, Set};

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
    ("norelatime", Atime(raw::MOUNT_ATTR_STRICTATIME)),
    ("atime", Atime(raw::MOUNT_ATTR_RELATIME)),
    ("nostrictatime", Atime(raw::MOUNT_ATTR_RELATIME)),
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
        let recursive = WORDS.iter().filter(|(_, m)| matches!(m, Set(_) | Clear(_) | Atime(_)));
        words.extend(recursive.map(|(word, _)| format!("r{word}")));
        words.sort();
        words
    }

    fn apply(&mut self, word: &str) {
        let find = |word: &str| WORDS.iter().find(|(name, _)| *name == word).map(|(_, m)| m);
        let (meaning, recursive) = match find(word) {
            Some(meaning) => (meaning, false),
            None => match word.strip_prefix('r').and_then(find) {
                Some(meaning @ (Set(_) | Clear(_) | Atime(_))) => (meaning, true),
                _ => return self.data.push(word.to_owned()),
            },
        };
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
    fn bind_and_propagation_words_are_no_recursive_attributes() {
        let o = MountOptions::parse(["rbind", "rslave", "rro"]);
        assert!(o.bind && o.recursive);
        assert_eq!(o.propagation, Some((Propagation::Slave, true)));
        assert_eq!(o.recursive_attributes.0, u64::from(raw::MOUNT_ATTR_RDONLY));
        assert!(o.data.is_empty());
    }
}
