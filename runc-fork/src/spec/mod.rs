//! `config.json`, from the bundle to the spec of a system container.
//!
//! | step | module | touches the host |
//! |---|---|---|
//! | read the file, as leniently as runc does | [`load`] | reads the bundle |
//! | the user's wishes: `SYSBOX_*` variables, `io.sysbox.*` annotations | [`options`] | no |
//! | what the spec doesn't say: engine, init system, owner | [`hints`] | reads |
//! | refuse what can't be done, by the field's name and with a remedy | [`validate`] | no |
//! | turn it into the spec of a system container | [`convert`] | no |
//!
//! `docs/spec-conversion.md` tells the same from the user's side, field by field.

pub mod convert;
mod error;
pub mod hints;
pub mod init_system;
pub mod load;
pub mod options;
mod tolerate;
pub mod validate;

pub use convert::{Context, convert, convert_process};
pub use error::Error;
pub use hints::{Engine, Hints, hints};
pub use init_system::InitSystem;
pub use load::{Loaded, load, load_process};
pub use options::{Options, ids_of_mounts};
pub use validate::{is_host_namespace, validate};

#[cfg(test)]
mod fixtures;
