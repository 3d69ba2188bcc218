//! From `linux.cgroupsPath` to a directory, by the rules of runc.
//!
//! * An absolute path is relative to the root of each hierarchy.
//! * A relative or missing one (then the container's id is taken) is relative to the runtime's own
//!   cgroup in a v1 hierarchy, and to the *parent* of that in v2: our own v2 cgroup has processes
//!   in it, and then it cannot give controllers to children.
//! * `..` never leads above the start.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// What `linux.cgroupsPath` and the id say, cleaned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Below the root of each hierarchy.
    FromRoot(PathBuf),
    /// Below where the runtime itself is.
    FromOwn(PathBuf),
}

/// Cleans `linux.cgroupsPath` for the cgroupfs driver.
pub(crate) fn wanted(cgroups_path: Option<&str>, id: &str) -> Result<Wanted> {
    let given = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(id);
    if given.contains(['\0', '\n']) {
        return Err(bad(given, "has a NUL or newline in it"));
    }
    let clean = clean(Path::new(given));
    if clean.as_os_str().is_empty() {
        return Err(bad(given, "names the root of the hierarchy, not a cgroup of the container"));
    }
    Ok(if given.starts_with('/') { Wanted::FromRoot(clean) } else { Wanted::FromOwn(clean) })
}

/// The path without `.`, empty parts and `..`, which stops at the top; always relative.
fn clean(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts
}

/// Directory that systemd gives to `slice:prefix:name`, relative to the root of a hierarchy:
/// the nested slices and then the scope `prefix-name.scope` (or `name`, where it is a slice).
///
/// An empty `slice` means `system.slice`; a missing path means `system.slice:runc:ID`, as in runc.
pub(crate) fn systemd(cgroups_path: Option<&str>, id: &str) -> Result<PathBuf> {
    let default = format!("system.slice:runc:{id}");
    let given = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(&default);
    let parts: Vec<&str> = given.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(bad(given, "the systemd cgroup driver needs the form slice:prefix:name"));
    };
    if name.is_empty() || given.contains(['\0', '\n']) {
        return Err(bad(given, "the name of the unit is empty or has a NUL or newline in it"));
    }
    if prefix.contains('/') || name.contains('/') {
        return Err(bad(given, "a unit name cannot have a slash in it"));
    }
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    let slices = expand_slice(if slice.is_empty() { "system.slice" } else { slice })
        .ok_or_else(|| bad(given, "the slice is no valid slice name (a-b.slice)"))?;
    Ok(slices.join(unit))
}

/// `a-b-c.slice` is the directory `a.slice/a-b.slice/a-b-c.slice`; `-.slice` is the root.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Some(path)
}

fn bad(path: &str, reason: &'static str) -> Error {
    Error::BadPath { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroupfs_paths() {
        let root = |path: &str| Wanted::FromRoot(path.into());
        let own = |path: &str| Wanted::FromOwn(path.into());
        for (given, expected) in [
            (Some("/docker/ID"), root("docker/ID")),
            (Some("//a/./b//c/"), root("a/b/c")),
            (Some("/../../a"), root("a")),
            (Some("/a/../../../b"), root("b")),
            (Some("a/b"), own("a/b")),
            (Some("../../a"), own("a")),
            (Some("a/../../b"), own("b")),
            (Some(""), own("ID")),
            (None, own("ID")),
            // A systemd path with the cgroupfs driver is one directory name, as in runc.
            (Some("system.slice:docker:ID"), own("system.slice:docker:ID")),
        ] {
            assert_eq!(wanted(given, "ID").unwrap(), expected, "{given:?}");
        }
        for given in ["/", "/..", "..", ".", "a/..", "/a\n", "a\0b"] {
            assert!(wanted(Some(given), "ID").is_err(), "{given:?}");
        }
    }

    #[test]
    fn systemd_paths() {
        for (given, expected) in [
            (Some("system.slice:docker:ID"), "system.slice/docker-ID.scope"),
            (Some(":docker:ID"), "system.slice/docker-ID.scope"),
            (Some("-.slice:docker:ID"), "docker-ID.scope"),
            (Some("user.slice::ID"), "user.slice/ID.scope"),
            (Some("a-b-c.slice:libpod:ID"), "a.slice/a-b.slice/a-b-c.slice/libpod-ID.scope"),
            (Some("kube.slice:x:kube-pod1.slice"), "kube.slice/kube-pod1.slice"),
            (None, "system.slice/runc-ID.scope"),
            (Some(""), "system.slice/runc-ID.scope"),
        ] {
            assert_eq!(systemd(given, "ID").unwrap(), Path::new(expected), "{given:?}");
        }
        for given in [
            "/docker/ID",
            "a:b",
            "a.slice:b:",
            "a:b:c",
            "a--b.slice:x:y",
            "../a.slice:x:y",
            "a.slice:x/..:y",
            ".slice:x:y",
            "a.slice:x:y:z",
        ] {
            assert!(systemd(Some(given), "ID").is_err(), "{given:?}");
        }
    }
}
