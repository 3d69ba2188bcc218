//! The directory of one container below `--root`.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime as oci;
use sysbox_cgroups::rdt::Group;

use super::{State, VERSION};

/// `--root` of a person who gives none.
pub const DEFAULT_ROOT: &str = "/run/sysbox-runc";

/// File of [`Directory::rdt`]; the manager reads it, too.
const RDT: &str = sysbox_cgroups::rdt::RECORD;

/// How long a command waits for another command on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// `<root>/<id>`
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    id: String,
}

impl Directory {
    /// Names the directory; nothing is made.
    ///
    /// # Errors
    /// An id that runc would not take either: it becomes a file name.
    pub fn new(root: &Path, id: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        ensure!(
            !id.is_empty()
                && id.len() <= 1024
                && id.chars().all(allowed)
                && id != "."
                && id != "..",
            "invalid container ID format: {id:?} (letters, digits, and _ + - . are allowed)"
        );
        Ok(Self { path: root.join(id), id: id.to_owned() })
    }

    /// Makes the directory for a new container.
    pub fn create(&self) -> Result<()> {
        if let Some(root) = self.path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o711).create(root);
            made.with_context(|| format!("make the state directory {}", root.display()))?;
        }
        match DirBuilder::new().mode(0o711).create(&self.path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                bail!("container with given ID already exists: {}", self.id)
            }
            other => other.with_context(|| format!("make {}", self.path.display())),
        }
    }

    /// The container's id for the manager, which knows the containers of all roots: ids that are
    /// random, or of the default root, as they are; others with a mark of their root.
    pub fn manager_id(&self) -> String {
        let random = self.id.len() == 64 && self.id.bytes().all(|b| b.is_ascii_hexdigit());
        let root = self.path.parent().unwrap_or(&self.path);
        if random || root == Path::new(DEFAULT_ROOT) {
            return self.id.clone();
        }
        // FNV-1a, 32 bits.
        let bytes = root.as_os_str().as_encoded_bytes();
        let mark = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        format!("{}+{mark:08x}", self.id)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a container, complete or not.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// FIFO that init waits on, with the name that it has in runc: init's open descriptors are told by
    /// their names.
    pub fn start_fifo(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    /// Excludes other commands on this container until the file is dropped.
    pub fn lock(&self) -> Result<File> {
        let path = self.path.join("lock");
        let file = match File::options().create(true).append(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                bail!("container does not exist: {}", self.id)
            }
            other => other.with_context(|| format!("open {}", path.display()))?,
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another command has held {} for {LOCK_TIMEOUT:?}; see `fuser {}`",
                    path.display(),
                    path.display()
                ),
                Err(TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
    }

    /// Reads `state.json`.
    pub fn load(&self) -> Result<State> {
        let path = self.path.join("state.json");
        let text = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                bail!("container does not exist: {}", self.id)
            }
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let state: State = serde_json::from_slice(&text).with_context(|| {
            format!("read {}: `delete --force {}` removes what is left", path.display(), self.id)
        })?;
        ensure!(
            state.version <= VERSION,
            "{} was written by a newer sysbox-runc (layout {}, this one knows {VERSION})",
            path.display(),
            state.version
        );
        Ok(state)
    }

    /// Writes `state.json` atomically.
    pub fn save(&self, state: &State) -> Result<()> {
        self.write("state.json", &serde_json::to_vec(state)?)
    }

    /// Keeps the converted spec.
    pub fn save_spec(&self, spec: &oci::Spec) -> Result<()> {
        self.write("config.json", &serde_json::to_vec(spec)?)
    }

    /// The converted spec.
    pub fn spec(&self) -> Result<oci::Spec> {
        let path = self.path.join("config.json");
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
    }

    /// Its group in resctrl, if it has one.
    pub fn rdt(&self) -> Result<Option<Group>> {
        let path = self.path.join(RDT);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let group = serde_json::from_slice(&text);
        group.map(Some).with_context(|| format!("parse {}", path.display()))
    }

    /// Keeps which group it has.
    pub fn save_rdt(&self, group: &Group) -> Result<()> {
        self.write(RDT, &serde_json::to_vec(group)?)
    }

    /// It has none any more.
    pub fn forget_rdt(&self) -> Result<()> {
        let path = self.path.join(RDT);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
    }

    /// Removes the directory with all that is in it.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

/// Ids of all containers below `root`, sorted.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("list {}", root.display()))?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|id| root.join(id).join("state.json").exists())
        .collect();
    ids.sort();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_root_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(Directory::new(Path::new("/r"), bad).is_err(), "{bad:?}");
        }
        assert!(Directory::new(Path::new("/r"), "A_b+c-d.9").is_ok());
    }

    #[test]
    fn the_manager_tells_roots_apart() {
        let id = |root: &str, id: &str| Directory::new(Path::new(root), id).unwrap().manager_id();
        assert_eq!(id(DEFAULT_ROOT, "web"), "web");
        assert_eq!(id("/r", &"0a".repeat(32)), "0a".repeat(32));
        assert_ne!(id("/r", "web"), id("/s", "web"));
        assert!(id("/r", "web").starts_with("web+"));
    }

    #[test]
    fn an_id_can_be_taken_once() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path(), "x").unwrap();
        directory.create().unwrap();
        let again = directory.create().unwrap_err().to_string();
        assert!(again.contains("already exists"), "{again}");
        assert!(list(root.path()).unwrap().is_empty(), "not listed before it is complete");
    }
}
