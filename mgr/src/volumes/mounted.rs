//! What /proc/self/mountinfo tells of the mount that a root file system lies in,
//! proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A mount of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// It shows all of its file system, not a part that was bound.
    pub whole: bool,
    /// The directories of an overlay.
    pub overlay: Option<Layers>,
}

/// The directories of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The one that is written to.
    pub upper: Option<PathBuf>,
    /// The others, topmost first; as the engine named them, perhaps relative.
    pub lower: Vec<PathBuf>,
}

/// The mount that `fd` lies in.
pub fn of(fd: impl AsFd) -> Option<Mounted> {
    let mount = crate::registry::process::fdinfo(fd.as_fd(), "mnt_id:")?;
    parse(&std::fs::read("/proc/self/mountinfo").ok()?, mount)
}

fn parse(mountinfo: &[u8], mount: i32) -> Option<Mounted> {
    let id = format!("{mount} ");
    let line = mountinfo.split(|&b| b == b'\n').find(|line| line.starts_with(id.as_bytes()))?;
    let separator = b" - ";
    let middle = line.windows(separator.len()).position(|w| w == separator)?;
    let mut left = line[..middle].split(|&b| b == b' ').skip(3);
    let whole = left.next()? == b"/";
    let mount_point = path(left.next()?);
    let mut right = line[middle + separator.len()..].splitn(3, |&b| b == b' ');
    let overlay = (right.next()? == b"overlay").then(|| layers(right.nth(1).unwrap_or_default()));
    Some(Mounted { mount_point, whole, overlay })
}

fn layers(options: &[u8]) -> Layers {
    let mut layers = Layers::default();
    for option in options.split(|&b| b == b',') {
        if let Some(upper) = option.strip_prefix(b"upperdir=") {
            layers.upper = Some(path(upper));
        } else if let Some(all) = option.strip_prefix(b"lowerdir=") {
            layers.lower = all.split(|&b| b == b':').filter(|p| !p.is_empty()).map(path).collect();
        } else if let Some(one) = option.strip_prefix(b"lowerdir+=") {
            layers.lower.push(path(one));
        }
    }
    layers
}

fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(text)))
}

/// Undoes the `\ooo` of the kernel's `seq_escape()`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(digits) = digits {
            out.push(
                digits.iter().fold(0u8, |value, d| value.wrapping_mul(8).wrapping_add(d - b'0')),
            );
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// The path that the kernel tells for a descriptor: for comparing, for messages, and as the beginning
/// of a path whose rest is looked up without following links.
pub fn path_of(fd: impl AsFd) -> Option<PathBuf> {
    super::copy::path_of(fd.as_fd()).filter(|path| path.is_absolute() && path != Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_is_found_by_mount_id() {
        let text = b"30 1 0:1 / / rw - ext4 /dev/vda rw\n\
            31 1 0:1 /sub /b rw shared:1 - ext4 /dev/vda rw\n\
            305 30 0:44 / /m rw,relatime shared:9 - overlay overlay rw,lowerdir=/a:l/b,upperdir=/x\\040y\\054z/diff,workdir=/w\n";
        let overlay = parse(text, 305).unwrap();
        assert_eq!((&*overlay.mount_point, overlay.whole), (Path::new("/m"), true));
        let layers = overlay.overlay.unwrap();
        assert_eq!(layers.upper, Some(PathBuf::from("/x y,z/diff")));
        assert_eq!(layers.lower, [PathBuf::from("/a"), PathBuf::from("l/b")]);
        assert_eq!(parse(text, 30).unwrap().overlay, None);
        assert!(!parse(text, 31).unwrap().whole);
        assert_eq!(parse(text, 5), None);
    }
}
