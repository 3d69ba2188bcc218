//! Directories that processes keep in use by the files that they run, map or have open.
//!
//! Only names are read here, as /proc shows them. They are hints: a file may have been renamed or lie
//! elsewhere, and the container can invent names (of a memfd, say). Whoever uses them looks them up in
//! the container's root and stays on its overlay.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Most that is read of one process's map, in bytes: some five thousand mappings.
const MAPS_MAX: u64 = 512 << 10;
/// Most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 1024;
/// Most directories in all.
const DIRECTORIES_MAX: usize = 16384;

/// Adds the directories that these processes hold, by their paths inside.
pub fn held_directories(pids: &[u32], directories: &mut HashSet<PathBuf>) {
    for pid in pids {
        if directories.len() >= DIRECTORIES_MAX {
            return;
        }
        mapped(*pid, directories);
        open(*pid, directories);
    }
}

/// Parents of the program and its libraries, from proc_pid_maps(5).
fn mapped(pid: u32, directories: &mut HashSet<PathBuf>) {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else {
        return;
    };
    for line in BufReader::new(maps.take(MAPS_MAX)).lines() {
        let Ok(line) = line else { return };
        if let Some(path) = mapped_file(&line) {
            add_parent(Path::new(path), directories);
        }
    }
}

/// The path in a line of the map: its sixth field, the only one with a slash.
fn mapped_file(line: &str) -> Option<&str> {
    line.find('/').map(|at| &line[at..])
}

/// Open directories, and the parents of open files.
fn open(pid: u32, directories: &mut HashSet<PathBuf>) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    for entry in entries.take(DESCRIPTORS_MAX) {
        // Others are `socket:[1]`, `pipe:[2]`, `anon_inode:...`.
        let Some(path) = std::fs::read_link(entry.path()).ok().filter(|path| path.is_absolute())
        else {
            continue;
        };
        add_parent(&path, directories);
        directories.insert(path);
    }
}

fn add_parent(path: &Path, directories: &mut HashSet<PathBuf>) {
    if let Some(parent) = path.parent()
        && !directories.contains(parent)
    {
        directories.insert(parent.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_the_file() {
        let line = "7f00-7f01 r-xp 00000000 fe:00 1234                       /usr/lib/a b.so";
        assert_eq!(mapped_file(line), Some("/usr/lib/a b.so"));
        assert_eq!(mapped_file("7ffd-7ffe rw-p 00000000 00:00 0          [stack]"), None);
    }

    #[test]
    fn of_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let _file = File::create(dir.path().join("open")).unwrap();
        let mut directories = HashSet::new();
        held_directories(&[std::process::id()], &mut directories);
        assert!(directories.contains(dir.path()), "of an open file: {directories:?}");
        let program = std::env::current_exe().unwrap();
        assert!(directories.contains(program.parent().unwrap()), "of the program: {directories:?}");
    }
}
