//! `mounts`, and the other lists of paths inside the container.

use std::path::{Component, Path};

use oci_spec::runtime::{Linux, Mount, Spec};

use crate::spec::Error;

/// mount_namespaces(7), with the `r` forms of the runtime-spec.
const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

pub(super) fn check(spec: &Spec, linux: &Linux) -> Result<(), Error> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        check_mount(&format!("mounts[{index}]"), mount)?;
    }
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => {}
        Some(word) if PROPAGATION.contains(&word) => {}
        Some(word) => {
            let reason = format!("{word:?} is no propagation");
            let remedy = format!("one of {}", PROPAGATION.join(", "));
            return Err(Error::field("linux.rootfsPropagation", reason, remedy));
        }
    }
    check_paths("linux.maskedPaths", linux.masked_paths().as_deref())?;
    check_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?;
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        check_inside(&format!("linux.devices[{index}].path"), device.path())?;
    }
    Ok(())
}

fn check_mount(field: &str, mount: &Mount) -> Result<(), Error> {
    check_inside(&format!("{field}.destination"), mount.destination())?;
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |word: &str| options.iter().any(|option| option == word);
    let is_bind = has("bind") || has("rbind") || mount.typ().as_deref() == Some("bind");
    if is_bind && mount.source().is_none() {
        let field = format!("{field}.source");
        return Err(Error::field(field, "is missing", "a bind mount shows something of the host"));
    }
    if !is_bind && mount.typ().as_deref().is_none_or(str::is_empty) {
        let remedy = "name a file system, or add the option bind";
        return Err(Error::field(format!("{field}.type"), "is missing", remedy));
    }
    Ok(())
}

fn check_paths(name: &str, paths: Option<&[String]>) -> Result<(), Error> {
    for (index, path) in paths.unwrap_or_default().iter().enumerate() {
        check_inside(&format!("{name}[{index}]"), Path::new(path))?;
    }
    Ok(())
}

/// A path inside the container: absolute, and without "..", so that what is compared by name is
/// what is opened.
fn check_inside(field: &str, path: &Path) -> Result<(), Error> {
    if !path.is_absolute() {
        return Err(Error::field(field, format!("{path:?} is not an absolute path"), ""));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::field(field, format!("{path:?} holds \"..\""), "write it without"));
    }
    Ok(())
}
