//! The OCI runtime of system containers: `config.json` in, a machine-like container out.
//!
//! [`spec`] reads and converts the configuration, [`plan`] decides, [`run`] carries out, [`state`]
//! remembers, [`cli`] is what a person or an engine types.

pub mod cli;
pub mod log;
pub mod plan;
pub mod prepare;
pub mod run;
pub mod spec;
pub mod state;
