//! `linux.resources.unified`: files of the v2 directory by name, for what has no field of its own.

use std::path::Path;

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::file;

/// Writes each file. The names are the user's, so they may only be names of files *in* the
/// container's directory.
pub(super) fn write<'a>(
    cgroup: &Cgroup,
    files: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<()> {
    let mut files: Vec<_> = files.collect();
    files.sort();
    for (name, value) in files {
        let field = format!("linux.resources.unified[{name}]");
        let refuse =
            |reason: &str| Error::Unsupported { field: field.clone(), reason: reason.to_owned() };
        let dir = cgroup
            .unified()
            .ok_or_else(|| refuse("invalid configuration: this host has no cgroup v2 hierarchy"))?;
        // "controller.what" also keeps "." and ".." out.
        let controller = match name.split_once('.') {
            Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() => controller,
            _ => {
                return Err(refuse("is no name of a cgroup v2 file (controller.setting)"));
            }
        };
        if name.contains('/') || name.contains('\0') {
            return Err(refuse("must be the name of a file, without a slash"));
        }
        write_one(dir, name, value, &field, controller)?;
    }
    Ok(())
}

fn write_one(dir: &Path, name: &str, value: &str, field: &str, controller: &str) -> Result<()> {
    file::write(dir, name, value).map_err(|source| {
        if file::is_gone(&source) {
            let controllers = file::read(dir, "cgroup.controllers").unwrap_or_default();
            if !controllers.split_whitespace().any(|other| other == controller) {
                let (field, controller) = (field.to_owned(), controller.to_owned());
                return Error::NoController { field, controller, path: dir.to_owned() };
            }
        }
        Error::Limit {
            field: field.to_owned(),
            value: value.to_owned(),
            path: dir.join(name),
            source,
            hint: String::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Mount};
    use std::fs;

    #[test]
    fn names() {
        let root = tempfile::tempdir().unwrap();
        let mount = Mount { controllers: None, root: root.path().to_owned(), own: "".into() };
        let layout = Layout::from_mounts(vec![mount]);
        let cgroup = Cgroup::plan(&layout, Some("/c"), "c").unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        fs::write(root.path().join("c/memory.high"), "").unwrap();
        fs::write(root.path().join("c/cgroup.controllers"), "memory\n").unwrap();
        fs::write(root.path().join("memory.high"), "").unwrap();
        let write = |name: &str| {
            let (name, value) = (name.to_owned(), "7".to_owned());
            write(&cgroup, std::iter::once((&name, &value)))
        };
        write("memory.high").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("c/memory.high")).unwrap(), "7");
        for name in ["../memory.high", "..", ".", "memory", "/etc/x.y", ""] {
            assert!(matches!(write(name), Err(Error::Unsupported { .. })), "{name}");
        }
        assert!(matches!(write("memory.nothing"), Err(Error::Limit { .. })));
        assert!(matches!(write("cpu.max"), Err(Error::NoController { .. })));
    }
}
