//! Reading the cgroup directories of a container, and of the reader below it.
//!
//! A container lies in one directory per hierarchy: a cgroup v2 one, and on hybrid hosts one for
//! each v1 controller. A reader inside may sit deeper (a systemd service, an inner container); the
//! directories from the container's own down to the reader's are its *levels*. Every file may be
//! missing (controller not enabled, cgroup just removed): then there is no value, never an error.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host::reread;
use super::kept::Kept;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// Levels below the container's own that are looked at; deeper ones can only tighten limits that
/// these give, and nobody nests that deep except to make the daemon work.
const MAX_DEPTH: usize = 32;
/// v1 says "no limit" as the largest page-aligned number; nothing real comes near.
const UNLIMITED_V1: u64 = 1 << 62;

/// A hierarchy and the container's place in it.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    /// v1 controllers of the hierarchy, comma separated; empty for cgroup v2.
    controllers: String,
    /// The container's directory on the host.
    dir: PathBuf,
    /// The container's cgroup in the words of `/proc/PID/cgroup`; unknown if the mount table does
    /// not tell. Without it every reader counts as sitting in the container's own cgroup.
    path: Option<String>,
    kept: Arc<Kept>,
    sampled: Arc<Kept>,
}

impl Hierarchy {
    /// Describes the container's directory `dir`; `mountinfo` is the text of
    /// `/proc/self/mountinfo`.
    pub fn new(controllers: &str, dir: &Path, mountinfo: &str) -> Self {
        let path = path_in_hierarchy(dir, mountinfo).or_else(|| {
            // A v1 controller is often reached by a symbolic link ("cpu" to "cpu,cpuacct").
            path_in_hierarchy(&dir.canonicalize().ok()?, mountinfo)
        });
        let (controllers, dir) = (controllers.to_owned(), dir.to_owned());
        let (kept, sampled) = (Kept::for_readers(), Kept::for_samples());
        Self { controllers, dir, path, kept: Arc::new(kept), sampled: Arc::new(sampled) }
    }

    /// Whether this is cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether `controller` is one of this v1 hierarchy's.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|c| c == controller)
    }

    /// The levels of a reader, whose `/proc/PID/cgroup` reads `reader`; the container's own first.
    /// Empty if the container's directory does not exist.
    pub fn levels(&self, reader: &str) -> Vec<Level> {
        self.open().map_or_else(Vec::new, |base| self.levels_at(Arc::new(base), None, reader))
    }

    /// As [`Self::levels`], of a reader who may soon come again: what is opened is kept open until
    /// [`Self::rest`].
    pub fn levels_again(&self, reader: &str) -> Vec<Level> {
        let base = self.kept.directory(|| self.open());
        base.map_or_else(Vec::new, |base| self.levels_at(base, Some(&self.kept), reader))
    }

    /// CPU time that the container has used, microseconds; its file stays open. `None` if its directory
    /// does not exist (any more), or this is a v1 hierarchy without the controller.
    pub fn cpu_used(&self) -> Option<u64> {
        let file = if self.is_v2() { "cpu.stat" } else { "cpuacct.usage" };
        let open = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            openat(CWD, self.dir.join(file), flags, Mode::empty()).ok()
        };
        let text = self.sampled.text(file, open, reread)?;
        match self.is_v2() {
            true => value_of(&text, "usage_usec"),
            false => text.trim().parse::<u64>().ok().map(|nanoseconds| nanoseconds / 1000),
        }
    }

    /// Lets go of what was kept open for readers.
    pub fn rest(&self) {
        self.kept.clear();
    }

    fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.dir, flags, Mode::empty()).ok()
    }

    fn levels_at(&self, base: Arc<OwnedFd>, kept: Option<&Arc<Kept>>, reader: &str) -> Vec<Level> {
        let mut below = String::new();
        let level = |below: &str| Level {
            base: base.clone(),
            below: below.to_owned(),
            kept: kept.cloned(),
        };
        let mut levels = vec![level("")];
        for name in self.suffix(reader).split('/').filter(|n| !n.is_empty()).take(MAX_DEPTH) {
            below.push_str(name);
            below.push('/');
            levels.push(level(&below));
        }
        levels
    }

    /// What follows the container's cgroup in the reader's; empty if the reader is not below it.
    fn suffix<'r>(&self, reader: &'r str) -> &'r str {
        let below = || {
            let rest = reader_path(reader, &self.controllers)?.strip_prefix(self.path.as_ref()?)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(rest)
        };
        below().unwrap_or("")
    }
}

/// The path in the line of `/proc/PID/cgroup` for a hierarchy with these controllers.
fn reader_path<'r>(reader: &'r str, controllers: &str) -> Option<&'r str> {
    let wanted = controllers.split(',').next()?;
    reader.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names.split(',').any(|name| name == wanted).then_some(path)
    })
}

/// Where `dir` lies in its cgroup hierarchy, by the mount that holds it. The root cgroup is "".
fn path_in_hierarchy(dir: &Path, mountinfo: &str) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let kind = filesystem.split(' ').next()?;
        (kind == "cgroup" || kind == "cgroup2").then_some((root, Path::new(point)))
    });
    let (root, point) = mounts
        .filter(|(_, point)| dir.starts_with(point))
        .max_by_key(|(_, point)| point.as_os_str().len())?;
    let below = dir.strip_prefix(point).ok()?.to_str()?;
    let path = format!("{}/{below}", root.trim_end_matches('/'));
    Some(path.trim_end_matches('/').to_owned())
}

/// A cgroup directory on the way from the container's own to the reader's.
#[derive(Debug, Clone)]
pub struct Level {
    base: Arc<OwnedFd>,
    /// Directory below `base`, empty or with a slash at its end.
    below: String,
    /// Where its files are kept open, if they are.
    kept: Option<Arc<Kept>>,
}

impl Level {
    /// Path below the container's own cgroup, "" for that itself.
    pub fn name(&self) -> &str {
        &self.below
    }

    /// The whole text of a file.
    pub fn text(&self, file: &str) -> Option<String> {
        // Names below the base come from cgroups that the container made: never leave the tree.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = format!("{}{file}", self.below);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = || openat2(&*self.base, path.as_str(), flags, Mode::empty(), resolve).ok();
        match &self.kept {
            Some(kept) => kept.text(&path, open, reread),
            None => reread(&open()?).ok(),
        }
    }

    /// The file's number.
    pub fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// The file's limit in bytes; none where it says "max" or v1's "no limit".
    pub fn limit(&self, file: &str) -> Option<u64> {
        self.number(file).filter(|&n| n < UNLIMITED_V1)
    }

    /// The value of `key` in a file of "key value" lines.
    pub fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        value_of(&self.text(file)?, key)
    }

    /// Names of the cgroups directly below.
    pub fn children(&self) -> Vec<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = if self.below.is_empty() { "." } else { &self.below };
        let open = || {
            let dir = openat2(&*self.base, path, flags, Mode::empty(), resolve)?;
            rustix::fs::Dir::new(dir)
        };
        let Ok(dir) = open() else { return Vec::new() };
        dir.filter_map(Result::ok)
            .filter(|e| e.file_type() == rustix::fs::FileType::Directory)
            .filter_map(|e| e.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| name != "." && name != "..")
            .map(|name| Level {
                base: self.base.clone(),
                below: format!("{}{name}/", self.below),
                kept: None,
            })
            .collect()
    }
}

/// The value of `key` in a text of "key value" lines.
pub fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
30 27 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
35 31 0:31 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
50 31 0:39 /outer /mnt/part rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_mount_table_tells_the_place_in_the_hierarchy() {
        let place = |dir: &str| path_in_hierarchy(Path::new(dir), MOUNTINFO);
        assert_eq!(place("/sys/fs/cgroup/unified/docker/a").as_deref(), Some("/docker/a"));
        assert_eq!(place("/sys/fs/cgroup/memory").as_deref(), Some(""));
        assert_eq!(place("/mnt/part/x").as_deref(), Some("/outer/x"));
        assert_eq!(place("/elsewhere"), None);
    }

    #[test]
    fn a_reader_counts_only_below_the_container() {
        let unified = Hierarchy::new("", Path::new("/sys/fs/cgroup/unified/docker/a"), MOUNTINFO);
        let memory = Hierarchy::new("memory", Path::new("/sys/fs/cgroup/memory/a"), MOUNTINFO);
        let reader = "8:cpu,memory:/a/b\n1:name=systemd:/\n0::/docker/a/sys.slice/x:y.service\n";
        assert_eq!(unified.suffix(reader), "/sys.slice/x:y.service");
        assert_eq!(memory.suffix(reader), "/b");
        assert_eq!(unified.suffix("0::/docker/ab\n"), "");
        assert_eq!(unified.suffix("0::/\n"), "");
        assert_eq!(unified.suffix(""), "");
    }

    #[test]
    fn levels_go_from_the_container_to_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/deep")).unwrap();
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        std::fs::write(dir.path().join("in/memory.max"), "4096\n").unwrap();
        let hierarchy = Hierarchy { path: Some("/c".into()), ..Hierarchy::new("", dir.path(), "") };
        let levels = hierarchy.levels("0::/c/in/deep\n");
        let limits: Vec<_> = levels.iter().map(|l| l.limit("memory.max")).collect();
        assert_eq!(limits, [None, Some(4096), None]);
        assert_eq!(levels[0].children().len(), 1);
        assert_eq!(levels[0].children()[0].name(), "in/");
        assert!(hierarchy.levels("0::/c/../..\n")[1].text("etc/passwd").is_none());
    }

    #[test]
    fn used_cpu_time_is_told_in_microseconds() {
        let dir = tempfile::tempdir().unwrap();
        let (v2, v1) =
            (Hierarchy::new("", dir.path(), ""), Hierarchy::new("cpuacct", dir.path(), ""));
        assert_eq!((v2.cpu_used(), v1.cpu_used()), (None, None));
        for used in [5, 7] {
            std::fs::write(dir.path().join("cpu.stat"), format!("usage_usec {used}\n")).unwrap();
            std::fs::write(dir.path().join("cpuacct.usage"), format!("{used}900\n")).unwrap();
            assert_eq!((v2.cpu_used(), v1.cpu_used()), (Some(used), Some(used)));
        }
    }

    #[test]
    fn keys_match_as_whole_words() {
        assert_eq!(value_of("anon_thp 7\nanon 5\n", "anon"), Some(5));
        assert_eq!(value_of("anon 5\n", "ano"), None);
    }
}
