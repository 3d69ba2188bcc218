//! The seccomp program of a container: the engine's profile, widened for a system container
//! ([`merge`]), with the calls that the mount broker serves handed to a listener ([`TRAPS`]).
//!
//! [`program`] does the whole way: profile to classic BPF. A program is
//!
//! ```text
//! prologue   for each ABI: traps; calls that libseccomp doesn't know; ENOSYS for calls that are
//!            newer than the profile                                          (our own, `prologue`)
//! body       everything else that the profile says                          (libseccomp, `compile`)
//! ```
//!
//! Jumps in classic BPF are relative, so one can be put before the other. The prologue asks for
//! nothing but the architecture and the number unless the call is one of the trapped ones: the
//! kernel can therefore see that an ordinary call is always allowed and skips the program for it
//! altogether (its constant-action bitmap).
//!
//! Compiling costs milliseconds and engines send the same profile every time, so the result is
//! cached on disk ([`Cache`]).

mod abi;
mod bpf;
mod cache;
mod compile;
mod error;
mod grants;
mod merge;
mod newer;
mod prologue;
mod traps;

use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

pub use abi::Abi;
pub use bpf::Program;
pub use cache::Cache;
pub use compile::{compile, wants_own_listener};
pub use error::{Error, Warning};
pub use grants::{Capability, GRANTS, Gate, Grant};
pub use merge::{Merged, merge};
pub use traps::{TRAPS, Trap, When};

/// What a program is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `linux.seccomp` of the bundle as the engine wrote it; `None`: unconfined.
    pub profile: Option<&'a LinuxSeccomp>,
    /// Allow what a system container needs; without it the profile is taken as it is.
    pub system_container: bool,
    /// Hand the calls of [`TRAPS`] to a listener, as far as the profile allows them. Without it
    /// the kernel answers them (there is a listener already, or none is wanted).
    pub traps: bool,
}

/// The program for `request`, from the cache in `cache_dir` if it is there.
///
/// A cache that can't be used is no error: the program is then compiled, and a warning says why.
///
/// # Errors
///
/// The profile can't be compiled: the error names the field and the value.
pub fn program(
    request: &Request<'_>,
    cache_dir: Option<&Path>,
) -> Result<(Program, Vec<Warning>), Error> {
    let mut cache_warning = None;
    let cache = cache_dir.and_then(|dir| {
        Cache::open(dir).map_err(|e| cache_warning = Some(Warning::cache(dir, &e))).ok()
    });
    if let Some((program, mut warnings)) = cache.as_ref().and_then(|cache| cache.load(request)) {
        warnings.extend(cache_warning);
        return Ok((program, warnings));
    }
    let merged = merge(request.profile, request.system_container);
    let (program, mut warnings) = compile(&merged, request.traps)?;
    warnings.splice(0..0, merged.warnings);
    if let Some((cache, dir)) = cache.as_ref().zip(cache_dir)
        && let Err(e) = cache.store(request, &program, &warnings)
    {
        cache_warning = Some(Warning::cache(dir, &e));
    }
    warnings.extend(cache_warning);
    Ok((program, warnings))
}
