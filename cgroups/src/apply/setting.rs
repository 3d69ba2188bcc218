//! One value for one file, and how values are written.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::file;

/// A text to be written to a file of a cgroup on behalf of a field of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The OCI field, for messages.
    pub(crate) field: String,
    /// The file; where kernels differ in the name, the names in order of preference.
    pub(crate) files: Vec<String>,
    /// What is written.
    pub(crate) value: String,
    /// A missing file is no error: without it the kernel behaves as wished.
    pub(crate) optional: bool,
    /// A file with the current use: the value is refused if it is not above that.
    pub(crate) above: Option<&'static str>,
    /// The kernel silently takes the nearest value it knows: refuse unless it reads back the same.
    pub(crate) exact: bool,
    /// What to do where none of the files is there.
    pub(crate) otherwise: Option<Box<Setting>>,
}

impl Setting {
    /// A setting of `linux.resources.FIELD`.
    pub(crate) fn new(field: &str, file: impl Into<String>, value: impl ToString) -> Setting {
        Setting {
            field: format!("linux.resources.{field}"),
            files: vec![file.into()],
            value: value.to_string(),
            optional: false,
            above: None,
            exact: false,
            otherwise: None,
        }
    }

    pub(crate) fn or_file(mut self, file: impl Into<String>) -> Setting {
        self.files.push(file.into());
        self
    }

    pub(crate) fn optional(mut self) -> Setting {
        self.optional = true;
        self
    }

    pub(crate) fn above(mut self, file: &'static str) -> Setting {
        self.above = Some(file);
        self
    }

    pub(crate) fn exact(mut self) -> Setting {
        self.exact = true;
        self
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let mut result = Err(io::ErrorKind::NotFound.into());
        for name in &self.files {
            result = file::write(dir, name, &self.value);
            if !result.as_ref().is_err_and(file::is_gone) {
                break;
            }
        }
        match (result, &self.otherwise) {
            (Err(error), Some(other)) if file::is_gone(&error) => other.write(dir),
            (Err(error), None) if self.optional && file::is_gone(&error) => Ok(()),
            (result, _) => result,
        }
    }

    fn failed(&self, dir: &Path, source: io::Error, hint: String) -> Error {
        Error::Limit {
            field: self.field.clone(),
            value: self.value.clone(),
            path: dir.join(&self.files[0]),
            source,
            hint,
        }
    }

    fn check_use(&self, dir: &Path) -> Result<()> {
        let (Some(name), Ok(value)) = (self.above, self.value.parse::<u64>()) else {
            return Ok(());
        };
        let used = file::read(dir, name).ok().and_then(|text| text.trim().parse::<u64>().ok());
        match used {
            Some(used) if used >= value => {
                let hint = format!(": {used} are in use, and checkBeforeUpdate is set");
                Err(self.failed(dir, io::Error::from(Errno::BUSY), hint))
            }
            _ => Ok(()),
        }
    }

    fn check_exact(&self, dir: &Path) -> Result<()> {
        let now = file::read(dir, &self.files[0]).unwrap_or_default();
        if !self.exact || now.trim() == self.value {
            return Ok(());
        }
        let hint = format!(": the nearest value that the kernel accepts is {}", now.trim());
        Err(self.failed(dir, io::Error::from(Errno::RANGE), hint))
    }
}

/// Writes the settings of one controller.
///
/// The kernel checks some of them against each other (memory against memory plus swap, quota
/// against period and burst), so which order is right depends on the values that were there before.
/// What is refused with `EINVAL` is therefore tried again after the others, as long as that helps.
pub(crate) fn write_all(dir: &Path, settings: Vec<Setting>) -> Result<()> {
    let mut left = settings;
    for setting in &left {
        setting.check_use(dir)?;
    }
    while !left.is_empty() {
        let before = left.len();
        let mut refused = Vec::new();
        let mut first_error = None;
        for setting in left {
            match setting.write(dir) {
                Ok(()) => setting.check_exact(dir)?,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    first_error.get_or_insert(error);
                    refused.push(setting);
                }
                Err(error) => {
                    let hint = hint(dir, &setting, &error);
                    return Err(setting.failed(dir, error, hint));
                }
            }
        }
        if let Some(error) = first_error
            && refused.len() == before
        {
            return Err(refused[0].failed(dir, error, String::new()));
        }
        left = refused;
    }
    Ok(())
}

/// What may explain the kernel's answer.
fn hint(dir: &Path, setting: &Setting, error: &io::Error) -> String {
    let read = |name: &str| file::read(dir, name).map(|text| text.trim().to_owned());
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV) if !dir.is_dir() => ": the cgroup is gone".to_owned(),
        Some(Errno::NOENT) if setting.files[0].contains("memsw") => {
            ": the kernel does not account swap (boot with swapaccount=1)".to_owned()
        }
        Some(Errno::NOENT) => ": this kernel does not have the setting".to_owned(),
        // v1 memory below what is in use and cannot be reclaimed.
        Some(Errno::BUSY) => match read("memory.usage_in_bytes") {
            Ok(used) => format!(": {used} bytes are in use"),
            Err(_) => String::new(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn alternatives_and_optional_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("io.weight"), "").unwrap();
        let weight = Setting::new("x", "io.bfq.weight", 5).or_file("io.weight");
        write_all(dir.path(), vec![weight]).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("io.weight")).unwrap(), "5");

        let missing = Setting::new("memory.swap", "memory.swap.max", "0");
        write_all(dir.path(), vec![missing.clone().optional()]).unwrap();
        let error = write_all(dir.path(), vec![missing]).unwrap_err().to_string();
        assert!(error.contains("linux.resources.memory.swap"), "{error}");
        assert!(error.contains("does not have the setting"), "{error}");
    }

    #[test]
    fn use_is_checked_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.current"), "100\n").unwrap();
        fs::write(dir.path().join("memory.max"), "").unwrap();
        let limit =
            |value: u64| vec![Setting::new("x", "memory.max", value).above("memory.current")];
        let error = write_all(dir.path(), limit(100)).unwrap_err().to_string();
        assert!(error.contains("100 are in use"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join("memory.max")).unwrap(), "");
        write_all(dir.path(), limit(101)).unwrap();
    }
}
