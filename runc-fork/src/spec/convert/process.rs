//! `process`.

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};

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
