//! Walking a cgroup tree that somebody else is changing.
//!
//! The tree below a delegated cgroup belongs to the container. It can be thousands of levels deep
//! (so no recursion and no descriptor per level), its paths can be longer than `PATH_MAX` (so every
//! step is relative to a directory descriptor), and it changes while it is read (so what vanishes is
//! skipped). A cgroup file system has no symbolic links, and v2 has no rename, so `..` is reliable.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// An open cgroup directory.
pub(crate) struct Dir(OwnedFd);

impl Dir {
    const FLAGS: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Opens a cgroup by path.
    pub(crate) fn open(path: &Path) -> io::Result<Dir> {
        Ok(Dir(rustix::fs::open(path, Self::FLAGS, Mode::empty())?))
    }

    fn at(&self, name: &CStr) -> io::Result<Dir> {
        Ok(Dir(openat(&self.0, name, Self::FLAGS, Mode::empty())?))
    }

    /// Names of the child cgroups.
    fn children(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Reads one of its files.
    pub(crate) fn read(&self, name: &str) -> io::Result<String> {
        let fd = openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Removes a child cgroup that has no children; one that is not there counts as removed.
    fn remove_child(&self, name: &CStr) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the walk has reached.
enum Step<'a> {
    /// A cgroup, before its children.
    Enter(&'a Dir),
    /// A child of `parent`, after all that is below it.
    Leave { parent: &'a Dir, name: &'a CStr },
}

/// Walks the tree at `root`. Directories that vanish meanwhile are skipped.
fn walk(root: Dir, mut visit: impl FnMut(Step<'_>) -> io::Result<()>) -> io::Result<()> {
    // One level: the children still to be visited, and the name of the one we are in.
    struct Level {
        left: Vec<CString>,
        inside: CString,
    }
    visit(Step::Enter(&root))?;
    let mut left = root.children()?;
    let mut above: Vec<Level> = Vec::new();
    let mut here = root;
    loop {
        if let Some(name) = left.pop() {
            let child = match here.at(&name) {
                Ok(child) => child,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            visit(Step::Enter(&child))?;
            let grandchildren = match child.children() {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
            above.push(Level { left: std::mem::replace(&mut left, grandchildren), inside: name });
            here = child;
        } else if let Some(level) = above.pop() {
            here = here.at(c"..")?;
            left = level.left;
            visit(Step::Leave { parent: &here, name: &level.inside })?;
        } else {
            return Ok(());
        }
    }
}

/// Calls `visit` for the cgroup at `root` and for every one below it.
pub(crate) fn for_each(
    root: &Path,
    mut visit: impl FnMut(&Dir) -> io::Result<()>,
) -> io::Result<()> {
    walk(Dir::open(root)?, |step| match step {
        Step::Enter(dir) => visit(dir),
        Step::Leave { .. } => Ok(()),
    })
}

/// Removes every cgroup below `root`, children first. Goes on over those that are busy and gives
/// the first such error at the end.
pub(crate) fn remove_below(root: &Path) -> io::Result<()> {
    let mut first_error = None;
    walk(Dir::open(root)?, |step| {
        if let Step::Leave { parent, name } = step
            && let Err(error) = parent.remove_child(name)
        {
            first_error.get_or_insert(error);
        }
        Ok(())
    })?;
    first_error.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a chain of `depth` directories with long names below `root`, deeper than any path.
    fn deep(root: &Path, depth: usize) {
        let mut here = Dir::open(root).unwrap();
        let name = CString::new("d".repeat(200)).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&here.0, &name, Mode::RWXU).unwrap();
            here = here.at(&name).unwrap();
        }
    }

    #[test]
    fn deeper_than_a_path_can_say() {
        let dir = tempfile::tempdir().unwrap();
        deep(dir.path(), 100);
        let mut seen = 0;
        for_each(dir.path(), |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 101);
        remove_below(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn wide_tree_and_files_that_are_not_directories() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..20 {
            std::fs::create_dir_all(dir.path().join(format!("a{index}/b/c"))).unwrap();
        }
        std::fs::write(dir.path().join("cgroup.procs"), "1\n2\n").unwrap();
        let mut seen = 0;
        for_each(dir.path(), |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, 61);
        remove_below(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn busy_directories_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("busy")).unwrap();
        std::fs::write(dir.path().join("busy/file"), "").unwrap();
        std::fs::create_dir_all(dir.path().join("free/below")).unwrap();
        assert!(remove_below(dir.path()).is_err());
        assert!(dir.path().join("busy").exists());
        assert!(!dir.path().join("free").exists());
    }
}
