//! Which cgroup hierarchies this host has, and where our own process is in them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// One mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Controllers of a v1 hierarchy (`["cpu", "cpuacct"]`, `["name=systemd"]`); `None` for the
    /// unified (v2) hierarchy.
    pub controllers: Option<Vec<String>>,
    /// Where it is mounted.
    pub root: PathBuf,
    /// Our own cgroup, relative to `root` (empty when we are in its root).
    pub own: PathBuf,
}

/// The cgroup hierarchies of the host, as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    mounts: Vec<Mount>,
}

impl Layout {
    /// Finds the hierarchies from `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// Where a hierarchy is mounted several times, the first visible mount under `/sys/fs/cgroup`
    /// is taken, else the first visible one.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] when none is mounted; [`Error::Io`] when `/proc` cannot be read.
    pub fn detect() -> Result<Layout> {
        let read = |path: &str| fs::read(path).context("read", path);
        let mountinfo = read("/proc/self/mountinfo")?;
        let own = read("/proc/self/cgroup")?;
        let layout = Self::parse(&mountinfo, &String::from_utf8_lossy(&own), visible);
        if layout.mounts.is_empty() { Err(Error::NoHierarchy) } else { Ok(layout) }
    }

    /// A layout made of given mounts, for tools that look at a tree that is mounted elsewhere.
    pub fn from_mounts(mounts: Vec<Mount>) -> Layout {
        Layout { mounts }
    }

    /// The same hierarchies, each with `sub` (a path below its root) taken for the root.
    pub fn below(&self, sub: &Path) -> Layout {
        let rebase = |mount: &Mount| Mount {
            controllers: mount.controllers.clone(),
            root: mount.root.join(sub),
            own: PathBuf::new(),
        };
        Layout { mounts: self.mounts.iter().map(rebase).collect() }
    }

    /// Is v2 the only version that carries controllers here? (A named v1 hierarchy, such as
    /// `name=systemd`, carries none.)
    pub fn is_pure_v2(&self) -> bool {
        self.unified_root().is_some()
            && self.v1_controllers().all(|(controller, _)| controller.starts_with("name="))
    }

    /// Mount point of the unified (v2) hierarchy.
    pub fn unified_root(&self) -> Option<&Path> {
        let unified = self.mounts.iter().find(|mount| mount.controllers.is_none());
        unified.map(|mount| mount.root.as_path())
    }

    /// The v1 controllers (and named hierarchies, as `name=NAME`) and the mount point of each.
    pub fn v1_controllers(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.mounts.iter().flat_map(|mount| {
            let names = mount.controllers.iter().flatten();
            names.map(|name| (name.as_str(), mount.root.as_path()))
        })
    }

    /// Every hierarchy, the unified one first.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    fn parse(mountinfo: &[u8], own: &str, visible: impl Fn(&Path, (u32, u32)) -> bool) -> Layout {
        let mut found: Vec<Mount> = Vec::new();
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let Some(entry) = Entry::parse(line) else {
                continue;
            };
            if !visible(&entry.mount_point, entry.device) {
                continue;
            }
            let own = own_cgroup(own, entry.controllers.as_deref())
                .map(|path| below_mount(&path, &entry.root))
                .unwrap_or_default();
            let mount = Mount { controllers: entry.controllers, root: entry.mount_point, own };
            let usual = |mount: &Mount| mount.root.starts_with("/sys/fs/cgroup");
            match found.iter_mut().find(|other| other.controllers == mount.controllers) {
                None => found.push(mount),
                Some(other) if !usual(other) && usual(&mount) => *other = mount,
                Some(_) => {}
            }
        }
        found.sort_by_key(|mount| mount.controllers.is_some());
        Layout { mounts: found }
    }
}

/// A cgroup line of mountinfo.
struct Entry {
    device: (u32, u32),
    root: PathBuf,
    mount_point: PathBuf,
    controllers: Option<Vec<String>>,
}

impl Entry {
    /// `36 35 98:0 /root /mount/point rw,... [optional]... - fstype source super,options`
    fn parse(line: &[u8]) -> Option<Entry> {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = std::str::from_utf8(fields.by_ref().nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        let root = unescape(fields.next()?);
        let mount_point = unescape(fields.next()?);
        fields.by_ref().find(|field| *field == b"-")?;
        let controllers = match fields.next()? {
            b"cgroup2" => None,
            b"cgroup" => {
                let options = std::str::from_utf8(fields.nth(1)?).ok()?;
                let is_controller = |option: &&str| !NOT_CONTROLLERS.contains(option);
                let names = options.split(',').filter(is_controller);
                let names = names.filter(|name| !name.contains('=') || name.starts_with("name="));
                let names: Vec<_> = names.map(str::to_owned).collect();
                Some(names).filter(|names| !names.is_empty()).map(Some)?
            }
            _ => return None,
        };
        Some(Entry { device, root, mount_point, controllers })
    }
}

/// Where the first file system of a type is mounted.
pub(crate) fn mount_point_of(kind: &str, mountinfo: &[u8]) -> Option<PathBuf> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = fields.by_ref().nth(4)?;
        fields.by_ref().find(|field| *field == b"-")?;
        (fields.next()? == kind.as_bytes()).then(|| unescape(point))
    })
}

/// Options of a v1 superblock that name no controller.
const NOT_CONTROLLERS: [&str; 8] =
    ["rw", "ro", "none", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"];

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Our path in one hierarchy, from the lines `id:controllers:path` of /proc/self/cgroup.
fn own_cgroup(own: &str, controllers: Option<&[String]>) -> Option<PathBuf> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controllers {
            None => id == "0" && names.is_empty(),
            Some(wanted) => names.split(',').any(|name| wanted.iter().any(|other| other == name)),
        };
        ours.then(|| PathBuf::from(path))
    })
}

/// `path` (of /proc/self/cgroup) relative to a mount that shows the tree from `root` on.
fn below_mount(path: &Path, root: &Path) -> PathBuf {
    let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).unwrap_or(path);
    // A process outside its cgroup namespace's root shows as "/../..": nothing below a mount.
    if below.components().any(|part| part == std::path::Component::ParentDir) {
        return PathBuf::new();
    }
    below.to_path_buf()
}

/// Is the mount on `device` what a lookup of `mount_point` finds (and not hidden by another)?
fn visible(mount_point: &Path, device: (u32, u32)) -> bool {
    fs::metadata(mount_point).is_ok_and(|meta| {
        let dev = meta.dev();
        (rustix::fs::major(dev), rustix::fs::minor(dev)) == device
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /a\\040b /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /mnt/other rw,relatime - cgroup2 cgroup2 rw
";
    const OWN: &str = "4:memory:/a b/c\n2:cpu,cpuacct:/x\n1:name=systemd:/user:1/s\n0::/me/deep\n";

    #[test]
    fn hybrid() {
        let layout = Layout::parse(HYBRID.as_bytes(), OWN, |_, _| true);
        assert!(!layout.is_pure_v2());
        assert_eq!(layout.unified_root(), Some(Path::new("/sys/fs/cgroup/unified")));
        let v1: Vec<_> = layout.v1_controllers().map(|(name, _)| name).collect();
        assert_eq!(v1, ["cpu", "cpuacct", "memory", "name=systemd"]);
        let own: Vec<_> = layout.mounts().iter().map(|m| m.own.to_str().unwrap()).collect();
        assert_eq!(own, ["me/deep", "x", "c", "user:1/s"]);
    }

    #[test]
    fn hidden_mounts_do_not_count() {
        // A pure v2 view mounted over the hybrid one: only the last mount is reached by its path.
        let over = format!("{HYBRID}50 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let seen = |path: &Path, device| path == "/sys/fs/cgroup" && device == (0, 38);
        let layout = Layout::parse(over.as_bytes(), OWN, seen);
        assert!(layout.is_pure_v2());
        assert_eq!(layout.mounts().len(), 1);
    }

    #[test]
    fn a_named_hierarchy_does_not_spoil_pure_v2() {
        let text = "40 31 0:37 / /c/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /c/unified rw,relatime - cgroup2 cgroup2 rw";
        assert!(Layout::parse(text.as_bytes(), "", |_, _| true).is_pure_v2());
    }

    #[test]
    fn mount_points_by_type() {
        let text = format!("{HYBRID}60 31 0:40 / /mnt/a\\040b rw - resctrl resctrl rw,mba_MBps\n");
        let found = mount_point_of("resctrl", text.as_bytes());
        assert_eq!(found.as_deref(), Some(Path::new("/mnt/a b")));
        assert_eq!(mount_point_of("resctrl", HYBRID.as_bytes()), None);
    }

    #[test]
    fn outside_of_the_namespace_root() {
        assert_eq!(below_mount(Path::new("/../other"), Path::new("/")), Path::new(""));
        assert_eq!(below_mount(Path::new("/docker/x/y"), Path::new("/docker/x")), Path::new("y"));
        assert_eq!(
            below_mount(Path::new("/elsewhere"), Path::new("/docker")),
            Path::new("elsewhere")
        );
    }

    #[test]
    fn this_machine() {
        let layout = Layout::detect().unwrap();
        for mount in layout.mounts() {
            assert!(mount.root.join("cgroup.procs").exists(), "{mount:?}");
        }
    }
}
