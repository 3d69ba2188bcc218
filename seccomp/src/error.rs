//! What can go wrong, and what the user should know though nothing did.

use std::fmt;
use std::io;
use std::path::Path;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The profile asks for something that is not supported or makes no sense.
    #[error("{field} in config.json: {reason}")]
    Profile {
        /// The field, as a path of names.
        field: String,
        /// What is wrong with it and what can be done.
        reason: String,
    },
    /// libseccomp refused.
    #[error("compiling linux.seccomp: {what}: {source}")]
    Libseccomp {
        /// What was being done.
        what: String,
        /// What libseccomp said.
        source: libseccomp::error::SeccompError,
    },
    /// The compiled program couldn't be taken from libseccomp.
    #[error("compiling linux.seccomp: reading the program: {0}")]
    Export(#[from] io::Error),
    /// These bytes are no seccomp program, or the profile needs more than the kernel's 4096
    /// instructions.
    #[error(
        "not a seccomp program: {length} bytes (the kernel takes 1 to 4096 instructions of 8 \
         bytes, the last one a return)"
    )]
    BadProgram {
        /// Their number.
        length: usize,
    },
}

/// Something that the user should know, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn cache(dir: &Path, error: &io::Error) -> Self {
        Self(format!(
            "cache of seccomp programs in {}: {error}; starting containers takes a few \
             milliseconds longer",
            dir.display()
        ))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
