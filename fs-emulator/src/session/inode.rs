//! The tree of the FUSE file system and its inode numbers.
//!
//! `/<key>/<path>` is an emulated file of a container. The same files lie in `/<key>/all` under flat
//! names (see [`sysbox_ipc::paths::flat`]): who mounts them all lists that one directory, and the kernel
//! knows all their names then, instead of asking for each. Inode numbers are a function of key and row
//! alone: a daemon that takes over knows every file that the kernel remembers.

use std::borrow::Cow;
use std::collections::HashMap;

use sysbox_ipc::paths::{ALL, flat};

use crate::table::{MAX_ID, Row, Source, rows};
use crate::view::host::Host;

/// Inode number of the root directory (FUSE fixes it).
pub const ROOT: u64 = 1;
/// Marks the inode numbers of directories. Containers see files only, and theirs fit in 32 bits for
/// a long time: old 32-bit programs can't stat(2) larger ones.
const DIRECTORY: u64 = 1 << 63;
/// Bits of a row's number in a file's inode number.
const ID_BITS: u32 = 10;
/// Bytes in a page.
const PAGE: u64 = 4096;
const _: () = assert!(MAX_ID < 1 << ID_BITS);

/// What an inode number stands for.
#[derive(Debug, Clone, Copy)]
pub enum Node<'t> {
    /// The root: a directory for each container.
    Root,
    /// A directory of a container.
    Directory {
        /// The container.
        key: u32,
        /// What is in it.
        directory: &'t Directory,
    },
    /// An emulated file of a container.
    File {
        /// The container.
        key: u32,
        /// The file.
        row: &'static Row,
    },
}

/// A directory that every container has.
#[derive(Debug, Default)]
pub struct Directory {
    path: String,
    entries: Vec<Entry>,
}

/// A name in a directory.
#[derive(Debug)]
struct Entry {
    name: Cow<'static, str>,
    /// The file, or none for a directory.
    row: Option<&'static Row>,
}

/// A file that exists on this host.
#[derive(Debug)]
struct File {
    row: &'static Row,
    size: u64,
    /// Permission bits.
    mode: u16,
}

/// The files that this host has, or may have later, in directories.
#[derive(Debug)]
pub struct Tree {
    files: HashMap<u16, File>,
    directories: HashMap<u32, Directory>,
}

impl Tree {
    /// The rows of the table whose native file this host has, or may have later.
    pub fn new(host: &Host) -> Self {
        let rows: Vec<_> = rows().filter(|row| row.is_wanted(host)).collect();
        let mut directories = HashMap::from([(hash(""), Directory::default())]);
        for row in &rows {
            let mut parent = "";
            for (end, _) in row.path.match_indices('/').chain([(row.path.len(), "")]) {
                let path = &row.path[..end];
                let is_file = end == row.path.len();
                let name = path[parent.len()..].trim_start_matches('/');
                let siblings = directories.entry(hash(parent)).or_default();
                siblings.path = parent.to_owned();
                if siblings.entries.iter().all(|e| e.name != name) {
                    let row = is_file.then_some(*row);
                    siblings.entries.push(Entry { name: name.into(), row });
                }
                parent = path;
            }
        }
        let name = |row: &&'static Row| Cow::Owned(flat(row.path));
        let entries = rows.iter().map(|row| Entry { name: name(row), row: Some(*row) }).collect();
        directories.insert(hash(ALL), Directory { path: ALL.to_owned(), entries });
        let top = directories.entry(hash("")).or_default();
        top.entries.push(Entry { name: ALL.into(), row: None });
        let file = |row: &'static Row| {
            let (size, mode) = (size_bound(host, row), mode(host, row));
            (row.id, File { row, size, mode })
        };
        Self { files: rows.into_iter().map(file).collect(), directories }
    }

    /// Size of a file as stat(2) shows it: at least that of any text, and never 0.
    ///
    /// Native files of procfs show 0. Here sendfile(2) and the like would then say "end of file"
    /// without asking the daemon; so as it is they ask, are refused, and their callers read.
    pub fn size(&self, row: &Row) -> u64 {
        self.files.get(&row.id).map_or(PAGE, |file| file.size)
    }

    /// Permission bits of a file.
    pub fn mode(&self, row: &Row) -> u16 {
        self.files.get(&row.id).map_or(0o444, |file| file.mode)
    }

    /// Paths of all files, in the table's order.
    pub fn files(&self) -> Vec<&'static str> {
        rows().filter(|row| self.files.contains_key(&row.id)).map(|row| row.path).collect()
    }

    /// What an inode number stands for; the container need not exist any more.
    pub fn node(&self, ino: u64) -> Option<Node<'_>> {
        if ino == ROOT {
            return Some(Node::Root);
        }
        if ino & DIRECTORY != 0 {
            let key = u32::try_from((ino & !DIRECTORY) >> 31).ok().filter(|&key| key > 0)?;
            let directory = self.directories.get(&((ino & 0x7fff_ffff) as u32))?;
            return Some(Node::Directory { key, directory });
        }
        let key = u32::try_from(ino >> ID_BITS).ok().filter(|&key| key > 0)?;
        let row = self.files.get(&((ino & u64::from(MAX_ID)) as u16))?.row;
        Some(Node::File { key, row })
    }

    /// The directory of a container.
    pub fn container(&self, key: u32) -> Node<'_> {
        Node::Directory { key, directory: &self.directories[&hash("")] }
    }

    /// A name in a directory of a container.
    pub fn child(&self, key: u32, directory: &Directory, name: &str) -> Option<Node<'_>> {
        let entry = directory.entries.iter().find(|e| e.name == name)?;
        self.entry(key, directory, entry)
    }

    /// The names in a directory of a container.
    pub fn children<'d>(&self, key: u32, directory: &'d Directory) -> Vec<(&'d str, Node<'_>)> {
        let entries = directory.entries.iter();
        entries.filter_map(|e| Some((&*e.name, self.entry(key, directory, e)?))).collect()
    }

    fn entry(&self, key: u32, directory: &Directory, entry: &Entry) -> Option<Node<'_>> {
        if let Some(row) = entry.row {
            return Some(Node::File { key, row });
        }
        let path = format!("{}/{}", directory.path, entry.name);
        let directory = self.directories.get(&hash(path.trim_start_matches('/')))?;
        Some(Node::Directory { key, directory })
    }
}

impl Node<'_> {
    /// The inode number.
    pub fn ino(&self) -> u64 {
        match self {
            Node::Root => ROOT,
            Node::Directory { key, directory } => {
                DIRECTORY | u64::from(*key) << 31 | u64::from(hash(&directory.path))
            }
            Node::File { key, row } => u64::from(*key) << ID_BITS | u64::from(row.id),
        }
    }
}

/// Twice the native text, which tells of all that a container can have, in whole pages as sysfs
/// shows: programs know such sizes to be no real ones.
fn size_bound(host: &Host, row: &Row) -> u64 {
    let native = host.read(row.path).map_or(0, |text| text.len() as u64);
    (2 * native).max(1).next_multiple_of(PAGE)
}

/// What the kernel lets whom do with the native file, if it is a setting.
fn mode(host: &Host, row: &Row) -> u16 {
    match row.source {
        Source::View(_) => 0o444,
        Source::Pressure(_) => host.mode(row.path).unwrap_or(0o666),
        // Anywhere but in the first network namespace, in which the daemon need not be, they are
        // read-only.
        Source::Setting(_) if row.path.starts_with("proc/sys/net/") => 0o644,
        Source::Setting(_) => host.mode(row.path).unwrap_or(0o644),
    }
}

/// A 31-bit number for a directory's path (FNV-1a).
fn hash(path: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    path.bytes().fold(0x811c_9dc5, step) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn tree() -> Tree {
        let root = tempfile::tempdir().unwrap();
        for row in rows().filter(|row| row.path != "proc/swaps") {
            let path = root.path().join(row.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        Tree::new(&Host::new(root.path()))
    }

    #[test]
    fn every_file_is_found_by_path_and_by_number() {
        let tree = tree();
        assert!(!tree.files().contains(&"proc/swaps"));
        for path in tree.files() {
            let mut node = tree.container(7);
            for name in path.split('/') {
                let Node::Directory { key, directory } = node else { panic!("{path}") };
                node = tree.child(key, directory, name).unwrap();
            }
            let Some(Node::File { key: 7, row }) = tree.node(node.ino()) else { panic!("{path}") };
            assert_eq!(row.path, path);
            assert!(u32::try_from(node.ino()).is_ok());
        }
    }

    #[test]
    fn every_file_has_a_flat_name() {
        let tree = tree();
        let Node::Directory { key, directory } = tree.container(7) else { panic!() };
        let Some(Node::Directory { directory, .. }) = tree.child(key, directory, ALL) else {
            panic!()
        };
        assert_eq!(tree.children(key, directory).len(), tree.files().len());
        let node = tree.child(key, directory, "proc!sys!kernel!panic");
        let Some(Node::File { key: 7, row }) = node else { panic!() };
        assert_eq!(row.path, "proc/sys/kernel/panic");
    }

    #[test]
    fn numbers_differ_and_lead_back() {
        let tree = tree();
        let mut seen = HashSet::from([ROOT]);
        for key in [1, 2, u32::MAX] {
            let mut open = vec![tree.container(key)];
            while let Some(node) = open.pop() {
                assert!(seen.insert(node.ino()), "{node:?}");
                assert_eq!(tree.node(node.ino()).unwrap().ino(), node.ino());
                if let Node::Directory { key, directory } = node {
                    if directory.path == ALL {
                        // The others once more.
                        continue;
                    }
                    open.extend(tree.children(key, directory).into_iter().map(|(_, child)| child));
                }
            }
        }
        assert!(tree.node(2).is_none() && tree.node(DIRECTORY | 5).is_none());
    }
}
