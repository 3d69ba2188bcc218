//! Every file that is emulated, with what it means and why it is not the kernel's own; and of other
//! files that tell of the host, why they are left as they are.
//!
//! To add a file, add a row to [`resources`] (and a renderer in [`crate::render`] if none fits) or to
//! [`settings`]: lookup, reading, writing, the list that the manager gets, inode numbers and
//! `docs/emulated-files.md` follow from it.

#[cfg(test)]
mod doc;
#[cfg(test)]
mod native;
mod resources;
mod settings;

use std::sync::PoisonError;

use crate::render;
use crate::settings::Setting;
use crate::view::View;
use crate::view::host::Host;

/// Largest number of a row.
pub const MAX_ID: u16 = 1023;

/// An emulated file.
#[derive(Debug)]
pub struct Row {
    /// Number of the file, 1 to [`MAX_ID`]; inode numbers are made of it, and a daemon that takes
    /// over from an older one must give the same: never changed, never used again.
    pub id: u16,
    /// Path in the container without the leading slash, e.g. "proc/meminfo".
    pub path: &'static str,
    /// What the file says inside.
    pub meaning: &'static str,
    /// Why the kernel's own file would not do.
    pub reason: &'static str,
    /// Where its text comes from.
    pub source: Source,
    /// Linux from this version (major, minor) on has it per namespace, and needs no file of ours.
    pub native_from: Option<(u32, u32)>,
}

/// Directories whose files come with modules of the kernel, which may be loaded at any time.
const OF_MODULES: [&str; 2] = ["proc/sys/net/netfilter/", "sys/module/"];

impl Row {
    /// Whether containers on this host are to have it.
    pub fn is_wanted(&self, host: &Host) -> bool {
        let is_native = self.native_from.is_some_and(|from| host.release() >= from);
        let comes_later = OF_MODULES.iter().any(|directory| self.path.starts_with(directory));
        !is_native && (comes_later || host.has(self.path))
    }

    /// The file's text for a reader.
    pub fn text(&self, view: &View) -> String {
        match &self.source {
            Source::View(render) => render(view),
            Source::Pressure(kind) => render::pressure(view, kind),
            Source::Setting(setting) => {
                let values = view.container.settings.lock();
                values.unwrap_or_else(PoisonError::into_inner).text(view.host, self, setting)
            }
        }
    }
}

/// Where the text of a file comes from.
#[derive(Debug)]
pub enum Source {
    /// Everybody may read it, nobody write it: made for the reader.
    View(fn(&View) -> String),
    /// What tasks lost by waiting for this ("cpu"); everybody may read it, and write a trigger to it.
    Pressure(&'static str),
    /// The container's own value; who may read and write it is as in the host's file.
    Setting(Setting),
}

/// All emulated files.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    resources::RESOURCES.iter().chain(settings::SETTINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        let all: Vec<_> = rows().collect();
        for (i, row) in all.iter().enumerate() {
            assert!(row.path.starts_with("proc/") || row.path.starts_with("sys/"), "{}", row.path);
            assert!(row.path.split('/').all(|name| !name.is_empty()), "{}", row.path);
            assert!(!row.meaning.is_empty() && !row.reason.is_empty(), "{}", row.path);
            assert!((1..=MAX_ID).contains(&row.id), "{}", row.path);
            let unlike = |other: &&Row| other.path != row.path && other.id != row.id;
            assert!(all[..i].iter().all(unlike), "{} twice", row.path);
        }
    }
}
