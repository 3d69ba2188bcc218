//! Which stores a container needs: looks into its root file system.
//!
//! The image is hostile: every look resolves inside the root (`RESOLVE_IN_ROOT`), so an absolute
//! symlink stays in it, and nothing that is found is opened for reading.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, chmodat, fstat, mkdirat, openat2,
    statat,
};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::config;
use super::table::{PROGRAM_DIRS, STORES};

/// A store that a container needs.
#[derive(Debug)]
pub struct Needed {
    /// Name of its volume.
    pub name: String,
    /// Absolute path in the container.
    pub destination: String,
    /// Mode that it has where the image has no such directory.
    pub mode: u32,
    /// The directory that the image has in its place.
    pub image: Option<OwnedFd>,
}

/// The stores that the image at `root` needs and that no mount of the spec touches. `already`: whether
/// the container has a volume of that name from before.
pub fn stores(
    root: BorrowedFd<'_>,
    mounts: &[String],
    already: impl Fn(&str) -> bool,
) -> Vec<Needed> {
    let mut programs = Programs::new(root);
    let mut found: Vec<Needed> = Vec::new();
    let known = STORES.iter().map(|store| {
        let (name, destination) = (store.name.to_owned(), store.destination.to_owned());
        (store, Needed { name, destination, mode: store.mode, image: None }, false)
    });
    // Who writes such a configuration wants the store, whatever is there yet.
    let configured = config::stores(root).filter_map(|(name, destination)| {
        let store = STORES.iter().find(|s| s.name == name && s.destination != destination)?;
        let name = format!("{name}-{}", destination.trim_matches('/').replace('/', "-"));
        Some((store, Needed { name, destination, mode: store.mode, image: None }, true))
    });
    for (store, needed, wanted) in known.chain(configured) {
        let destination = needed.destination.as_str();
        let Ok(image) = directory(root, destination) else {
            // Not a directory, or a symlink that leads nowhere: what the image means is unclear, and
            // the runtime could not mount over it either.
            tracing::debug!(path = destination, "the image has something else there");
            continue;
        };
        let resolved = image.as_ref().and_then(|dir| path_in_root(root, dir.as_fd()));
        let real = resolved.as_deref().unwrap_or(Path::new(destination));
        let covered = mounts
            .iter()
            .map(Path::new)
            .any(|mount| touches(mount, Path::new(destination)) || touches(mount, real));
        // One in another would hide it.
        let nested =
            found.iter().any(|f| touches(Path::new(&f.destination), Path::new(destination)));
        let mut needs = || {
            wanted || already(&needed.name) || image.is_some() || programs.has_any(store.programs)
        };
        if !covered && !nested && needs() {
            found.push(Needed { image, ..needed });
        }
    }
    found
}

/// Whether a mount at `mount` lies at, above (other than at the root) or below `dir`.
fn touches(mount: &Path, dir: &Path) -> bool {
    let (mount, dir) = (normal(mount), normal(dir));
    !mount.as_os_str().is_empty() && (mount.starts_with(&dir) || dir.starts_with(&mount))
}

/// `path` without leading slash, `.` and `..`, as the kernel would take it if nothing were a symlink.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// The path of `dir` below `root`, by what the kernel says their paths are.
pub(super) fn path_in_root(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Option<PathBuf> {
    let below =
        super::copy::path_of(dir)?.strip_prefix(super::copy::path_of(root)?).ok()?.to_owned();
    Some(Path::new("/").join(below))
}

/// The directory at `path` in the root; `None` if there is nothing.
fn directory(root: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>> {
    match in_root(root, path, OFlags::DIRECTORY) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) if is_dangling(root, path) => Err(Errno::NOENT),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens the directory at `path` in the root, making what is missing; `made` is called for each one
/// that was, the last of which has `mode`.
pub(super) fn make_directory(
    root: BorrowedFd<'_>,
    path: &str,
    mode: Mode,
    made: impl Fn(&OwnedFd) -> Result<()>,
) -> std::io::Result<OwnedFd> {
    let path = normal(Path::new(path));
    let mut so_far = PathBuf::from("/");
    let mut parent = in_root(root, "/", OFlags::DIRECTORY)?;
    let names: Vec<_> = path.components().collect();
    for (index, name) in names.iter().enumerate() {
        so_far.push(name);
        parent = match in_root(root, so_far.as_path(), OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                mkdirat(&parent, name.as_os_str(), Mode::from_raw_mode(0o700))?;
                // Opened through the parent that is held: what was made is what is used.
                let new = in_root(parent.as_fd(), name.as_os_str(), OFlags::DIRECTORY)?;
                let last = index + 1 == names.len();
                let mode = if last { mode } else { Mode::from_raw_mode(0o755) };
                made(&new)?;
                chmodat(CWD, super::copy::proc_path(new.as_fd()), mode, AtFlags::empty())?;
                new
            }
            other => other?,
        };
    }
    Ok(parent)
}

fn is_dangling(root: BorrowedFd<'_>, path: &str) -> bool {
    in_root(root, path, OFlags::NOFOLLOW).is_ok()
}

pub(super) fn in_root(root: BorrowedFd<'_>, path: impl Arg, flags: OFlags) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: something was renamed during the walk; it is not our tree, so look again, a few times.
    for _ in 0..16 {
        match openat2(root, path.as_cow_c_str()?, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Looks for programs in the directories of [`PROGRAM_DIRS`], each opened once.
struct Programs<'a> {
    root: BorrowedFd<'a>,
    dirs: Option<Vec<(&'static str, OwnedFd)>>,
}

impl<'a> Programs<'a> {
    fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, dirs: None }
    }

    fn has_any(&mut self, names: &[&str]) -> bool {
        let root = self.root;
        let dirs = self.dirs.get_or_insert_with(|| program_dirs(root));
        names.iter().any(|name| {
            dirs.iter().any(|(dir, fd)| match statat(fd, *name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => {
                    // Where it leads is resolved from the root, so that an absolute link stays inside.
                    in_root(root, format!("{dir}/{name}"), OFlags::empty())
                        .and_then(fstat)
                        .is_ok_and(|target| is_program(&target))
                }
                Ok(found) => is_program(&found),
                Err(_) => false,
            })
        })
    }
}

fn program_dirs(root: BorrowedFd<'_>) -> Vec<(&'static str, OwnedFd)> {
    let mut seen = Vec::new();
    let mut dirs = Vec::new();
    for dir in PROGRAM_DIRS {
        let Ok(fd) = in_root(root, *dir, OFlags::DIRECTORY) else {
            continue;
        };
        let Ok(stat) = fstat(&fd) else { continue };
        // On a merged /usr most of them are the same directory.
        if !seen.contains(&(stat.st_dev, stat.st_ino)) {
            seen.push((stat.st_dev, stat.st_ino));
            dirs.push((*dir, fd));
        }
    }
    dirs
}

fn is_program(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(root: &Path, mounts: &[&str]) -> Vec<String> {
        let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mounts: Vec<_> = mounts.iter().map(|m| (*m).to_owned()).collect();
        stores(fd.as_fd(), &mounts, |_| false).into_iter().map(|s| s.name).collect()
    }

    fn program(root: &Path, path: &str) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "#!").unwrap();
        fs::set_permissions(root.join(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_store_is_needed_where_its_directory_or_its_program_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(names(root, &[]).is_empty());
        fs::create_dir_all(root.join("var/lib/containerd")).unwrap();
        program(root, "usr/bin/dockerd");
        fs::write(root.join("usr/bin/podman"), "no program: no x bit").unwrap();
        assert_eq!(names(root, &[]), ["docker", "containerd"]);
    }

    #[test]
    fn a_configured_store_is_needed_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc/docker")).unwrap();
        let config = |place: &str| {
            let text = format!("{{\"data-root\": \"{place}\"}}");
            fs::write(root.join("etc/docker/daemon.json"), text).unwrap();
        };
        config("/data/docker");
        assert_eq!(names(root, &[]), ["docker-data-docker"]);
        assert!(names(root, &["/data"]).is_empty());
        config("/var/lib/docker");
        assert!(names(root, &[]).is_empty());
        fs::create_dir_all(root.join("var/lib/docker")).unwrap();
        config("/var/lib/docker/inner");
        assert_eq!(names(root, &[]), ["docker"]);
    }

    #[test]
    fn symlinks_stay_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        program(root, "opt/k3s");
        fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        symlink("/opt/k3s", root.join("usr/local/bin/k3s")).unwrap();
        // Exists on the host but not in the root.
        symlink("/bin/sh", root.join("usr/local/bin/k0s")).unwrap();
        assert_eq!(names(root, &[]), ["rancher"]);
        fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink("/nowhere", root.join("var/lib/rancher")).unwrap();
        assert!(names(root, &[]).is_empty());
    }

    #[test]
    fn mounts_of_the_user_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("var/lib/docker")).unwrap();
        for mount in
            ["/var/lib/docker", "/var/lib", "/var/", "/var/lib/docker/x", "/a/../var/lib/docker"]
        {
            assert!(names(root, &[mount]).is_empty(), "{mount}");
        }
        for mount in ["/", "/var/lib/dockers", "/proc", "/var/lib/containerd"] {
            assert_eq!(names(root, &[mount]), ["docker"], "{mount}");
        }
        fs::create_dir_all(root.join("data/engine")).unwrap();
        fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink("/data/engine", root.join("var/lib/k0s")).unwrap();
        assert_eq!(names(root, &["/data"]), ["docker"]);
        assert_eq!(names(root, &["/else"]), ["docker", "k0s"]);
    }
}
