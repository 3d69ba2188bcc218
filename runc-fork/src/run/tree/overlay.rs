//! The root file system when the engine mounted an overlay: an overlay of our own over the same
//! directories, each layer ID-mapped.
//!
//! An overlay mount itself cannot be ID-mapped (EINVAL on every kernel so far), its layers can
//! (5.19). Files on disk keep the ids that the image gave them. The kernel does the overlay's own
//! work (copy-up, whiteouts) with the ids of the process that mounted it, so that process must
//! have the file-system ids of the container's root: with others the overlay silently turns
//! read-only, which is checked for.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use sysbox_kernel::mount::{clone_tree, idmap};

use super::mountinfo::{self, Mount};

/// Name of the work directory of our overlay, beside the engine's own. Two mounts may share an
/// upper directory (without `index=on`), never a work directory: the kernel empties it on mount.
const WORK_DIRECTORY: &str = "work-sysbox";

/// Options of the engine's overlay that decide what its layers mean, so ours must have them too.
const KEPT: &[&str] = &["redirect_dir", "metacopy", "userxattr", "volatile", "xino", "fsync"];

/// The directories and options of an overlay mount.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Topmost first.
    pub lower: Vec<PathBuf>,
    /// `None`: read-only.
    pub upper: Option<PathBuf>,
    /// The engine's work directory.
    pub work: Option<PathBuf>,
    /// Those of [`KEPT`] that were given, `key` or `key=value`.
    pub options: Vec<String>,
}

impl Overlay {
    /// Reads the options of an overlay mount as mountinfo shows them. Relative directories
    /// (Docker, with many layers) are relative to `base`.
    pub fn parse(mount: &Mount, base: &Path) -> Result<Self> {
        let mut overlay = Self::default();
        for option in mount.super_options.split(',').map(mountinfo::unescape) {
            let (key, value) = option.split_once('=').unwrap_or((&option, ""));
            let path = |text: &str| base.join(unescape(text));
            match key {
                "lowerdir" => {
                    overlay.lower = split_unescaped(value, ':').iter().map(|p| path(p)).collect();
                }
                "lowerdir+" => overlay.lower.push(path(value)),
                "upperdir" => overlay.upper = Some(path(value)),
                "workdir" => overlay.work = Some(path(value)),
                "index" if value == "on" => bail!(
                    "the engine mounted the root file system with index=on, which forbids a second mount of its upper directory; \
                     load the overlay module with index=off"
                ),
                key if KEPT.contains(&key) => overlay.options.push(option),
                _ => {}
            }
        }
        if overlay.lower.is_empty() {
            bail!("the overlay at {} tells no lower directories", mount.mount_point.display());
        }
        Ok(overlay)
    }

    /// Our work directory, if there is an upper one.
    pub fn own_work_directory(&self) -> Option<PathBuf> {
        Some(self.upper.as_ref()?.parent()?.join(WORK_DIRECTORY))
    }

    /// Mounts the overlay over ID-mapped layers and returns the detached mount.
    ///
    /// The caller has the container root's file-system ids.
    pub fn mount(&self, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
        let mut layers = Layers::new(self, userns)?;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("open overlay")?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "overlay")?;
        for lower in &self.lower {
            let layer = layers.open(lower)?;
            set_layer(context, "lowerdir+", &layer).with_context(|| naming("lower", lower))?;
        }
        if let (Some(upper), Some(work)) = (&self.upper, self.own_work_directory()) {
            let fd = layers.open(upper)?;
            set_layer(context, "upperdir", &fd).with_context(|| naming("upper", upper))?;
            // Through the ID-mapped clone, so that on disk it belongs to root.
            let above = layers.open(upper.parent().unwrap_or(upper))?;
            match mkdirat(&above, WORK_DIRECTORY, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e).with_context(|| naming("work", &work)),
            }
            let fd = layers.open(&work)?;
            set_layer(context, "workdir", &fd).with_context(|| naming("work", &work))?;
        }
        for option in &self.options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context, key, value),
                None => fsconfig_set_flag(context, option.as_str()),
            }
            .with_context(|| format!("take over the overlay option {option}"))?;
        }
        fsconfig_create(context).context(
            "mount the root file system's overlay over ID-mapped layers (needs Linux 5.19, and a storage file system that can be ID-mapped)",
        )?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(context, flags, MountAttrFlags::empty())?;
        let read_only =
            rustix::fs::fstatvfs(&mount)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        if self.upper.is_some() && read_only {
            bail!(
                "the overlay over ID-mapped layers came up read-only: the kernel could not use the work directory {:?}",
                self.own_work_directory().unwrap_or_default()
            );
        }
        Ok(mount)
    }
}

/// Gives the overlay a layer by descriptor (6.13), or by its path in /proc before that.
fn set_layer(context: BorrowedFd<'_>, key: &str, layer: &OwnedFd) -> rustix::io::Result<()> {
    match fsconfig_set_fd(context, key, layer) {
        Err(Errno::INVAL | Errno::BADF) => {
            fsconfig_set_string(context, key, sysbox_kernel::process::fd_path(layer))
        }
        other => other,
    }
}

/// ID-mapped clones that the layers are opened through: one clone of the deepest directory above
/// all of them where they share a file system, one each otherwise. The upper and the work
/// directory must come from the same mount.
struct Layers<'a> {
    userns: BorrowedFd<'a>,
    common: PathBuf,
    clone: OwnedFd,
}

impl<'a> Layers<'a> {
    fn new(overlay: &Overlay, userns: BorrowedFd<'a>) -> Result<Self> {
        let mut common: Option<PathBuf> = None;
        let upper = overlay.upper.as_ref().and_then(|u| u.parent()).map(Path::to_path_buf);
        for path in upper.iter().chain(&overlay.lower) {
            let path = canonical(path)?;
            common = Some(match common {
                None => path,
                Some(so_far) => shared_ancestor(&so_far, &path),
            });
        }
        let mut common = common.unwrap_or_default();
        // The upper's own clone must also hold the work directory.
        if let Some(upper) = &upper
            && device(&common)? != device(upper)?
        {
            common = canonical(upper)?;
        }
        Ok(Self { userns, clone: mapped_clone(&common, userns)?, common })
    }

    fn open(&mut self, path: &Path) -> Result<OwnedFd> {
        let path = canonical(path)?;
        if let Ok(below) = path.strip_prefix(&self.common)
            && device(&path)? == device(&self.common)?
        {
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            return openat2(&self.clone, below, flags, Mode::empty(), resolve)
                .with_context(|| naming("layer", &path));
        }
        mapped_clone(&path, self.userns)
    }
}

fn mapped_clone(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let clone = clone_tree(CWD, path, false).with_context(|| naming("layer", path))?;
    idmap(&clone, userns, false).with_context(|| {
        format!(
            "ID-map {}: the file system there cannot be ID-mapped by this kernel; \
             keep the engine's data on ext4, xfs or btrfs",
            path.display()
        )
    })?;
    Ok(clone)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| naming("layer", path))
}

fn device(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path).with_context(|| naming("layer", path))?.dev())
}

fn shared_ancestor(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(x, y)| x == y).map(|(x, _)| x).collect()
}

fn naming(what: &str, path: &Path) -> String {
    format!("open the {what} directory {} of the root file system's overlay", path.display())
}

/// Splits at `separator`, but not where a backslash stands before it.
fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        result.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(options: &str) -> Mount {
        Mount { super_options: options.into(), ..Mount::default() }
    }

    #[test]
    fn docker_and_new_kernel_spellings() {
        let base = Path::new("/o");
        let docker = "rw,lowerdir=/o/l/B:l/A,upperdir=/o/x/diff,workdir=/o/x/work,metacopy=on";
        let overlay = Overlay::parse(&mount(docker), base).unwrap();
        assert_eq!(overlay.lower, [PathBuf::from("/o/l/B"), PathBuf::from("/o/l/A")]);
        assert_eq!(overlay.upper, Some("/o/x/diff".into()));
        assert_eq!(overlay.options, ["metacopy=on"]);
        assert_eq!(overlay.own_work_directory(), Some("/o/x/work-sysbox".into()));
        let plus = Overlay::parse(&mount(r"ro,lowerdir+=/a\:b,lowerdir+=/c"), base).unwrap();
        assert_eq!(plus.lower, [PathBuf::from("/a:b"), PathBuf::from("/c")]);
        assert_eq!(plus.upper, None);
    }

    #[test]
    fn index_on_is_refused() {
        assert!(Overlay::parse(&mount("lowerdir=/a,index=on"), Path::new("/")).is_err());
    }
}
