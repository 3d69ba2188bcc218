//! Why a bundle can't be run, in the words that the engine's user will read.

use std::io;
use std::path::PathBuf;

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the bundle can't be read.
    #[error("reading {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system call said.
        source: io::Error,
    },
    /// A file of the bundle is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line or the field.
        reason: String,
    },
    /// A field asks for what can't be done.
    #[error("{field}: {reason}{}", remedy_in_brackets(remedy))]
    Field {
        /// Path of the field in config.json, or the name of a variable.
        field: String,
        /// Why not.
        reason: String,
        /// What the user can do instead; may be empty.
        remedy: String,
    },
}

impl Error {
    pub(super) fn field(
        field: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Field { field: field.into(), reason: reason.into(), remedy: remedy.into() }
    }
}

fn remedy_in_brackets(remedy: &str) -> String {
    if remedy.is_empty() { String::new() } else { format!(" ({remedy})") }
}
