//! Reading `config.json`.
//!
//! The spec's types are strict where runc is not, and their messages don't say which field is
//! meant; so the file is first read as plain JSON, what runc tolerates is taken out with a warning,
//! and the rest is turned into the types with the path of the field at hand.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Error, tolerate};

/// Largest configuration that is read, in bytes; Kubernetes' largest objects have 1.5 MB.
const MAX_SIZE: u64 = 16 << 20;

/// A bundle as the engine made it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub spec: Spec,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute: `root.path` from the bundle.
    pub rootfs: PathBuf,
    /// What was tolerated, one line each.
    pub warnings: Vec<String>,
}

/// Reads `config.json` of the bundle.
///
/// # Errors
///
/// It can't be read, is no JSON (the message has line and column), has a value that can't be (the
/// message has the field), or names no root file system.
pub fn load(bundle: &Path) -> Result<Loaded, Error> {
    let bundle = std::path::absolute(bundle)
        .map_err(|source| Error::Read { path: bundle.to_owned(), source })?;
    let path = bundle.join("config.json");
    let mut json = read_json(&path)?;
    let mut warnings = Vec::new();
    if let Some(process) = json.get_mut("process") {
        tolerate::process(process, "process", &mut warnings);
    }
    tolerate::spec(&mut json, &mut warnings)
        .map_err(|reason| Error::Malformed { path: path.clone(), reason })?;
    let mut spec: Spec = typed(json, &path)?;
    let root = spec.root().as_ref().ok_or_else(|| Error::Malformed {
        path: path.clone(),
        reason: "root is missing: it must name the root file system".into(),
    })?;
    let rootfs = bundle.join(root.path());
    strip_root(&mut spec, &rootfs);
    match std::fs::metadata(&rootfs) {
        Ok(metadata) if metadata.is_dir() => Ok(Loaded { spec, bundle, rootfs, warnings }),
        Ok(_) => Err(Error::field(
            "root.path",
            format!("{} is not a directory", rootfs.display()),
            "it must be the root file system, mounted",
        )),
        Err(e) => Err(Error::field("root.path", format!("{}: {e}", rootfs.display()), "")),
    }
}

/// As runc: a destination may be told by its path on the host, below the root file system.
fn strip_root(spec: &mut Spec, rootfs: &Path) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if rootfs != Path::new("/")
            && let Ok(inside) = mount.destination().strip_prefix(rootfs)
        {
            let inside = Path::new("/").join(inside);
            mount.set_destination(inside);
        }
    }
}

/// Reads the process of `exec --process`; the second value holds what was tolerated.
///
/// # Errors
///
/// As [`load`].
pub fn load_process(path: &Path) -> Result<(Process, Vec<String>), Error> {
    // Whatever the caller names, a pipe too.
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SIZE).read_to_end(&mut text))
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mut json = parse(&text, path)?;
    let mut warnings = Vec::new();
    tolerate::process(&mut json, "", &mut warnings);
    Ok((typed(json, path)?, warnings))
}

fn read_json(path: &Path) -> Result<Value, Error> {
    let text = read_bounded(path, MAX_SIZE)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

fn parse(text: &[u8], path: &Path) -> Result<Value, Error> {
    serde_json::from_slice(text)
        .map_err(|e| Error::Malformed { path: path.to_owned(), reason: e.to_string() })
}

/// Reads a regular file of at most `limit` bytes; never waits for a FIFO that stands in its place.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut text = Vec::new();
    File::from(file).take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        let message = format!("larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

fn typed<T: DeserializeOwned>(json: Value, path: &Path) -> Result<T, Error> {
    serde_path_to_error::deserialize(json).map_err(|e| {
        let field = e.path().to_string();
        let reason = match field.as_str() {
            "." => e.inner().to_string(),
            field => format!("{field}: {}", e.inner()),
        };
        Error::Malformed { path: path.to_owned(), reason }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A bundle with this text as its config.json and an empty directory `rootfs`.
    fn bundle(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        dir
    }

    #[test]
    fn a_docker_bundle_loads() {
        let dir = bundle(crate::spec::fixtures::DOCKER);
        fs::write(dir.path().join("config.json"), {
            let mut json: Value = serde_json::from_str(crate::spec::fixtures::DOCKER).unwrap();
            json["root"]["path"] = "rootfs".into();
            json.to_string()
        })
        .unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.rootfs, dir.path().join("rootfs"));
        assert!(loaded.warnings.is_empty());
        assert_eq!(loaded.spec.mounts().as_ref().unwrap().len(), 10);
    }

    #[test]
    fn what_runc_tolerates_is_tolerated() {
        let dir = bundle(
            r#"{"ociVersion": "1.2.0", "somethingNew": {"a": 1}, "root": {"path": "rootfs"},
                "process": {"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0},
                    "capabilities": {"bounding": ["CAP_CHOWN", "CAP_OF_2031"], "ambient": null}},
                "linux": {"resources": {"devices": [{"allow": false, "type": "", "access": "rwm"}]}}
            }"#,
        );
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].contains("process.capabilities.bounding: \"CAP_OF_2031\""));
        let process = loaded.spec.process().as_ref().unwrap();
        let bounding = process.capabilities().as_ref().unwrap().bounding();
        assert_eq!(bounding.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn what_is_malformed_is_named() {
        let rows = [
            ("{\n  \"root\": ,\n}", "line 2 column 11"),
            ("", "EOF"),
            ("[1]", "config.json: "),
            (r#"{"ociVersion": "1.0"}"#, "root is missing"),
            (
                r#"{"root": {"path": "rootfs"}, "linux": {"resources": {"pids": {"limit": "x"}}}}"#,
                "linux.resources.pids.limit: invalid type: string \"x\"",
            ),
            (
                r#"{"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "moon"}]}}"#,
                "linux.namespaces[0].type: unknown variant `moon`",
            ),
            (r#"{"root": {"path": "gone"}}"#, "root.path: "),
            (r#"{"root": {"path": "config.json"}}"#, "is not a directory"),
        ];
        for (text, expected) in rows {
            let dir = bundle(text);
            let message = load(dir.path()).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("config.json: No such file"), "{message}");
        let path = dir.path().join("config.json");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(MAX_SIZE + 1).unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert!(message.contains("larger than"), "{message}");
    }

    #[test]
    fn a_process_alone_loads_as_leniently() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("process.json");
        let json = r#"{"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0},
            "capabilities": {"effective": ["CAP_OF_2031"]}}"#;
        fs::write(&path, json).unwrap();
        let (process, warnings) = load_process(&path).unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["a"]);
        assert!(warnings[0].starts_with("capabilities.effective:"), "{warnings:?}");
    }
}
