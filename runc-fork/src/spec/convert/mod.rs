//! From the spec of an engine to that of a system container. Pure.
//!
//! `docs/spec-conversion.md` lists every field. What isn't named here is left as the engine wrote
//! it: limits, hooks, rlimits, oom_score_adj, SELinux labels, no_new_privs, user, hostname...
//!
//! With [`Options::system_container`] off ("keep my spec, only isolate it") only the namespaces,
//! the settings that hold ids, and our own variables are changed.

mod devices;
mod mounts;
mod namespaces;
mod paths;
mod process;
mod sysctl;

use std::collections::HashMap;

use oci_spec::runtime::{Capabilities, Process, Spec};

use super::options::ANNOTATION_PREFIX;
use super::{Engine, Hints, Options};

/// What conversion needs besides the spec.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The user's wishes.
    pub options: &'a Options,
    /// What is known of the bundle.
    pub hints: &'a Hints,
    /// All capabilities that this kernel has (those of our own bounding set).
    pub capabilities: &'a Capabilities,
    /// How many group ids, from 0 on without a gap, the container has.
    pub gid_count: u32,
}

/// Converts `spec`; the second value holds what the user should know, one line each.
pub fn convert(mut spec: Spec, context: &Context<'_>) -> (Spec, Vec<String>) {
    let mut warnings = Vec::new();
    if let Some(process) = spec.process_mut().take() {
        let honor = honors_capabilities(&process, context);
        let options = Options { honor_capabilities: Some(honor), ..context.options.clone() };
        annotate(&mut spec, "honor-caps", &honor.to_string());
        let mut process = convert_process(process, &options, context.capabilities);
        if let Some(init) = context.hints.init_system.filter(|_| is_system(context)) {
            process::tell_container(&mut process, context.hints.engine);
            annotate(&mut spec, "init-system", init.name());
        }
        spec.set_process(Some(process));
    }
    if let Some(linux) = spec.linux_mut() {
        namespaces::complete(linux);
        sysctl::clamp_groups(linux, context.gid_count);
        if is_system(context) {
            paths::open_up(linux);
        }
    }
    if is_system(context) {
        paths::hide_disks(&mut spec);
        if context.hints.init_system.is_some() {
            paths::hide_static_nodes(&mut spec, &context.hints.kernel_files);
        }
        let taken = mounts::convert(&mut spec, context, &mut warnings);
        devices::add(&mut spec, &taken);
    }
    annotate(&mut spec, "system-container", &is_system(context).to_string());
    (spec, warnings)
}

/// Converts a process, the container's first or one of `exec`.
///
/// For `exec`, `options` are those of the container: [`Options::of`] the converted spec gives them.
pub fn convert_process(
    mut process: Process,
    options: &Options,
    capabilities: &Capabilities,
) -> Process {
    process::drop_own_variables(&mut process);
    if options.system_container {
        process::drop_engine_profile(&mut process);
        if options.honor_capabilities != Some(true) {
            process::grant_capabilities(&mut process, capabilities);
        }
    }
    process::limit_capabilities(&mut process, capabilities);
    process
}

/// Whether the process keeps the capabilities that the spec lists: because that was asked for, or
/// because somebody wrote them who is no engine.
fn honors_capabilities(process: &Process, context: &Context<'_>) -> bool {
    let by_hand =
        context.hints.engine == Engine::Unknown && process::lists_own_capabilities(process);
    context.options.honor_capabilities.unwrap_or(by_hand)
}

fn is_system(context: &Context<'_>) -> bool {
    context.options.system_container
}

/// Writes a decision into the converted spec, where later commands (`exec`, `kill`) find it.
fn annotate(spec: &mut Spec, name: &str, value: &str) {
    let mut annotations: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
    annotations.insert(format!("{ANNOTATION_PREFIX}{name}"), value.to_owned());
    spec.set_annotations(Some(annotations));
}

#[cfg(test)]
mod tests;
