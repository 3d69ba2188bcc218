//! The error of a call: what the user will read, and what the user can do.

use sysbox_ipc::proto;

/// Why a call failed, in the words that end up on the user's terminal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", if remedy.is_empty() { String::new() } else { format!(" ({remedy})") })]
pub struct Error {
    /// What was being done, to which object, and why it failed.
    pub message: String,
    /// What the user can do about it; may be empty.
    pub remedy: String,
}

/// Result of the manager's own functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: String::new() }
    }

    /// Adds advice.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl From<Error> for proto::Error {
    fn from(error: Error) -> Self {
        Self { message: error.message, remedy: error.remedy }
    }
}

/// Says what was being done when a lower layer failed.
pub(crate) trait Doing<T> {
    /// `what` reads like "reading /etc/subuid".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(format!("{}: {e}", what())))
    }
}
