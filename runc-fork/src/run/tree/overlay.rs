//! The root file system when the engine mounted an overlay: an overlay of our own over the same
//! directories, each layer ID-mapped.
//!
//! An overlay mount itself cannot be ID-mapped (EINVAL on every kernel so far), its layers can
//! (5.19). Files on disk keep the ids that the image gave them. The kernel does the overlay's own
//! work (copy-up, whiteouts) with the ids of the process that mounted it, so that process must
//! have the file-system ids of the container's root: with others the overlay silently turns
//! read-only, which is checked for.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, unmount,
};
use sysbox_kernel::features::Feature;
use sysbox_kernel::mount::{attach, clone_tree, idmap};
use sysbox_kernel::process::fd_path;

use super::mountinfo::{self, Mount};
use crate::plan::LABEL;

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
    /// The SELinux context of all its files.
    pub label: Option<String>,
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
        let layers = Layers::open(self, userns)?;
        let by_descriptor = Feature::OverlayLayerFds.may_be_used();
        let mount = match by_descriptor.then(|| self.mount_by_descriptors(&layers)) {
            Some(Ok(mount)) => mount,
            // Kernels before 6.15 know the options, or take detached layers, only in part; what
            // is really wrong then shows the other way, too.
            Some(Err(_)) | None => self.mount_by_paths(&layers)?,
        };
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

    fn mount_by_descriptors(&self, layers: &Layers) -> Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("open overlay")?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "overlay")?;
        for lower in &layers.lower {
            fsconfig_set_fd(context, "lowerdir+", lower)?;
        }
        if let Some((upper, work)) = &layers.upper_and_work {
            fsconfig_set_fd(context, "upperdir", upper)?;
            fsconfig_set_fd(context, "workdir", work)?;
        }
        for option in &self.options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context, key, value),
                None => fsconfig_set_flag(context, option.as_str()),
            }
            .with_context(|| format!("take over the overlay option {option}"))?;
        }
        if let Some(label) = &self.label {
            fsconfig_set_string(context, LABEL, label.as_str())
                .with_context(|| format!("label the root file system {label}"))?;
        }
        fsconfig_create(context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Ok(fsmount(context, flags, MountAttrFlags::empty())?)
    }

    /// As every kernel since 5.19 can: the layers are attached somewhere in the builder's own
    /// namespace, and named by the paths of their descriptors.
    fn mount_by_paths(&self, layers: &Layers) -> Result<OwnedFd> {
        layers.attach()?;
        let lower: Vec<_> = layers.lower.iter().map(fd_path).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = &layers.upper_and_work {
            options += &format!(",upperdir={},workdir={}", fd_path(upper), fd_path(work));
        }
        for option in &self.options {
            options += &format!(",{option}");
        }
        if let Some(label) = &self.label {
            // There may be a comma in it.
            options += &format!(",{LABEL}=\"{label}\"");
        }
        let options = CString::new(options)?;
        let place = super::scratch_directory("overlay")?;
        let none = MountFlags::empty();
        mount("overlay", &place, "overlay", none, options.as_c_str()).context(
            "mount the root file system's overlay over ID-mapped layers (needs Linux 5.19, and a storage file system that can be ID-mapped)",
        )?;
        let clone = clone_tree(CWD, &place, false).context("clone the overlay")?;
        unmount(&place, UnmountFlags::DETACH).context("unmount the overlay's first place")?;
        Ok(clone)
    }
}

/// The layers of an overlay, opened through ID-mapped clones: one clone of the deepest directory
/// above all of them where they share a file system, one each otherwise. The upper and the work
/// directory must come from the same mount.
struct Layers {
    /// The clones; the descriptors below lie in them.
    clones: Vec<OwnedFd>,
    lower: Vec<OwnedFd>,
    upper_and_work: Option<(OwnedFd, OwnedFd)>,
}

impl Layers {
    fn open(overlay: &Overlay, userns: BorrowedFd<'_>) -> Result<Self> {
        let common = common_directory(overlay)?;
        let mut clones = vec![mapped_clone(&common, userns)?];
        let mut open = |path: &Path| -> Result<OwnedFd> {
            let path = canonical(path)?;
            if let Ok(below) = path.strip_prefix(&common)
                && device(&path)? == device(&common)?
            {
                let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                return openat2(&clones[0], below, flags, Mode::empty(), resolve)
                    .with_context(|| naming("layer", &path));
            }
            let clone = mapped_clone(&path, userns)?;
            let layer = clone.try_clone()?;
            clones.push(clone);
            Ok(layer)
        };
        let lower = overlay.lower.iter().map(|path| open(path)).collect::<Result<_>>()?;
        let upper_and_work = match (&overlay.upper, overlay.own_work_directory()) {
            (Some(upper), Some(work)) => {
                // Made through the ID-mapped clone, so that on disk it belongs to root.
                let above = open(upper.parent().unwrap_or(upper))?;
                match mkdirat(&above, WORK_DIRECTORY, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e).with_context(|| naming("work", &work)),
                }
                Some((open(upper)?, open(&work)?))
            }
            _ => None,
        };
        Ok(Self { clones, lower, upper_and_work })
    }

    /// Attaches the clones in the builder's namespace: before 6.15 a layer of an overlay may not
    /// be a detached mount.
    fn attach(&self) -> Result<()> {
        for (index, clone) in self.clones.iter().enumerate() {
            let place = super::scratch_directory(&format!("layer{index}"))?;
            attach(clone, super::open_directory(&place)?).context("attach a layer")?;
        }
        Ok(())
    }
}

/// The directory that one clone is made of: the deepest one above all layers, or, if the storage
/// is spread over file systems, the one above the upper and the work directory.
fn common_directory(overlay: &Overlay) -> Result<PathBuf> {
    let upper = overlay.upper.as_ref().and_then(|u| u.parent()).map(Path::to_path_buf);
    let mut common: Option<PathBuf> = None;
    for path in upper.iter().chain(&overlay.lower) {
        let path = canonical(path)?;
        common = Some(match common {
            None => path,
            Some(so_far) => shared_ancestor(&so_far, &path),
        });
    }
    let common = common.unwrap_or_default();
    match &upper {
        Some(upper) if device(&common)? != device(upper)? => canonical(upper),
        _ => Ok(common),
    }
}

fn mapped_clone(path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let clone = clone_tree(CWD, path, false).with_context(|| naming("layer", path))?;
    idmap(&clone, userns, false).map_err(|e| {
        let why = super::cannot_be_mapped(&e, "keep the engine's data on ext4, xfs or btrfs");
        anyhow::Error::new(e).context(format!("ID-map {}: {why}", path.display()))
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
