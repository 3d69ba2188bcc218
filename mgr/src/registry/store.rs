//! The records on disk: one JSON file a container, replaced atomically.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::record::{Record, VERSION};

/// `<data root>/containers`.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the directory, making it if it is not there.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// All readable records. A file that cannot be read is renamed to `*.corrupt`, with a warning:
    /// one bad file must not keep the other containers from being managed.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                // A write that a crash interrupted; the record is there, the old one or the new one.
                let _ = fs::remove_file(&path);
            }
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => records.push(record),
                Err(why) => set_aside(&path, &why),
            }
        }
        Ok(records)
    }

    /// Writes a record. `durable`: it is on the medium when this returns, so that it survives a power
    /// failure; a crash of this process alone is survived either way.
    pub fn save(&self, record: &Record, durable: bool) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        // Named by key, not by id: an id may be as long as a file name can be.
        let new = self.dir.join(format!("{}.tmp", record.key));
        write_replace(&new, &self.path(&record.id), &text, durable)
    }

    /// Removes a record; one that is not there counts as removed.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir.join(file_name(id))
    }
}

/// Longest id that names its file: with `.json`, and `.corrupt` should it come to that, it stays below
/// the 255 bytes that file systems allow.
const WHOLE: usize = 240;

/// The file of a container: its id, or where that is too long its beginning and a digest of it. No id
/// has an `@`.
fn file_name(id: &str) -> String {
    // FNV-1a: a name must be the same in every release, and engines are not hostile.
    let digest = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    match id.get(..WHOLE - 17) {
        Some(start) if id.len() > WHOLE => format!("{start}@{digest:016x}.json"),
        _ => format!("{id}.json"),
    }
}

fn read(path: &Path) -> Result<Record, String> {
    let text = fs::read(path).map_err(|e| e.to_string())?;
    let record: Record = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    if record.version > VERSION {
        return Err(format!("it was written by a newer release (format {})", record.version));
    }
    if path.file_name().is_none_or(|name| name != file_name(&record.id).as_str()) {
        return Err(format!("it holds the record of {}", record.id));
    }
    Ok(record)
}

/// Renames an unreadable file so that it is not read again but can be looked at.
pub(super) fn set_aside(path: &Path, why: &str) {
    let aside = (0..u32::MAX)
        .map(|n| {
            let mut name = path.as_os_str().to_owned();
            name.push(if n == 0 { ".corrupt".to_owned() } else { format!(".{n}.corrupt") });
            PathBuf::from(name)
        })
        .find(|p| fs::symlink_metadata(p).is_err());
    if let Some(aside) = aside {
        match fs::rename(path, &aside) {
            Ok(()) => {
                tracing::warn!(file = %path.display(), set_aside = %aside.display(), "unreadable: {why}");
            }
            Err(e) => {
                tracing::warn!(file = %path.display(), "unreadable ({why}), and cannot be renamed: {e}")
            }
        }
    }
}

/// Writes `text` to `new` and renames it to `path`.
pub(super) fn write_replace(new: &Path, path: &Path, text: &[u8], durable: bool) -> io::Result<()> {
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
    out.write_all(text)?;
    if durable {
        out.sync_all()?;
    }
    // ext4 takes a file that is renamed over another for one that must not be lost, and writes it out at
    // once. Two that change places are not taken for that.
    if !durable && renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE).is_ok() {
        let _ = fs::remove_file(new);
        return Ok(());
    }
    fs::rename(new, path)?;
    match path.parent() {
        Some(dir) if durable => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}
