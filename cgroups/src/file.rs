//! Reading and writing the small files of a cgroup.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// Reads a whole file of a cgroup.
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(dir.join(name))?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes `value` with a single `write(2)`: the kernel takes each write as one complete setting.
pub(crate) fn write(dir: &Path, name: &str, value: &str) -> io::Result<()> {
    // Neither created nor truncated: a control file that does not exist is an answer (ENOENT).
    let mut file = OpenOptions::new().write(true).open(dir.join(name))?;
    loop {
        match file.write(value.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Value of `key` in a file of `key value` lines (`cgroup.events`, `memory.stat`).
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// Is this the error of a file or directory that is not there (any more)?
///
/// A file of a cgroup that was removed while it was open answers `ENODEV`.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        rustix::io::Errno::from_io_error(error),
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_lines() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(keyed(text, "populated"), Some(1));
        assert_eq!(keyed(text, "frozen"), Some(0));
        assert_eq!(keyed(text, "froz"), None);
    }

    #[test]
    fn missing_file_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), "memory.max", "1").unwrap_err();
        assert!(is_gone(&error));
        assert!(!dir.path().join("memory.max").exists());
    }
}
