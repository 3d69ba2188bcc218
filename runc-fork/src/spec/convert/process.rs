//! `process`.

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};

use crate::spec::Engine;
use crate::spec::options::VARIABLE_PREFIX;

/// AppArmor profiles that engines put on every container. They deny mount(2), writes below /proc
/// and /sys and more, for a root that is the host's; the root here is not. A profile that the user
/// chose has another name and stays.
const ENGINE_PROFILES: [&str; 4] =
    ["docker-default", "cri-containerd.apparmor.d", "crio-default", "containers-default"];

pub(super) fn drop_own_variables(process: &mut Process) {
    if let Some(env) = process.env_mut() {
        env.retain(|entry| !entry.starts_with(VARIABLE_PREFIX));
    }
}

/// Sets `container`, unless the image or the user did: an init system looks for it to know that it
/// does not run a whole machine.
pub(super) fn tell_container(process: &mut Process, engine: Engine) {
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("container=")) {
        env.push(format!("container={}", engine.container_variable()));
    }
    process.set_env(Some(env));
}

pub(super) fn drop_engine_profile(process: &mut Process) {
    let of_engine = |name: &String| {
        ENGINE_PROFILES.iter().any(|profile| name == profile)
            || name.starts_with("containers-default-")
    };
    if process.apparmor_profile().as_ref().is_some_and(of_engine) {
        process.set_apparmor_profile(None);
    }
}

/// What every engine gives to every container, at least: CRI-O's list. Podman's has two more, that of
/// Docker and containerd five; `--cap-add` adds to them.
const OF_ENGINES: [Capability; 9] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
];

/// What `runc spec`, and ours, writes into every example.
const OF_EXAMPLES: [Capability; 3] =
    [Capability::AuditWrite, Capability::Kill, Capability::NetBindService];

/// Whether the capabilities are a user's own choice, in a spec that bears no mark of an engine: they are
/// neither those of an engine nor of an untouched example, and not missing altogether, which is no choice.
pub(super) fn lists_own_capabilities(process: &Process) -> bool {
    let Some(sets) = process.capabilities() else {
        return false;
    };
    let [bounding, effective, permitted, inheritable, ambient] =
        [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()]
            .map(|set| set.clone().unwrap_or_default());
    let example = Capabilities::from(OF_EXAMPLES);
    // Older examples have the other two sets as well.
    let is_example = [&bounding, &effective, &permitted].iter().all(|set| **set == example)
        && [&inheritable, &ambient].iter().all(|set| set.is_empty() || **set == example);
    // Whatever the other sets have: Buildah fills them all.
    let is_engines = bounding.is_superset(&Capabilities::from(OF_ENGINES));
    !is_example && !is_engines
}

/// All for root, none for others; the bounding set is full, so that setuid programs (sudo) work.
///
/// The inheritable set stays empty: with it, programs whose files carry inheritable capabilities
/// would gain them for users that should have none. So does the ambient set, which is a subset.
pub(super) fn grant_capabilities(process: &mut Process, all: &Capabilities) {
    let held = if process.user().uid() == 0 { all.clone() } else { HashSet::new() };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(all.clone()))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(HashSet::new()))
        .set_ambient(Some(HashSet::new()));
    process.set_capabilities(Some(capabilities));
}

/// Leaves out what this kernel doesn't have, as runc does.
pub(super) fn limit_capabilities(process: &mut Process, all: &Capabilities) {
    let Some(mut capabilities) = process.capabilities().clone() else {
        return;
    };
    let limit = |set: &Option<Capabilities>| {
        set.as_ref().map(|set| set.intersection(all).copied().collect::<Capabilities>())
    };
    let bounding = limit(capabilities.bounding());
    let effective = limit(capabilities.effective());
    let permitted = limit(capabilities.permitted());
    let inheritable = limit(capabilities.inheritable());
    let ambient = limit(capabilities.ambient());
    capabilities
        .set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted)
        .set_inheritable(inheritable)
        .set_ambient(ambient);
    process.set_capabilities(Some(capabilities));
}
