//! What runc takes and the spec's types do not: changed in the plain JSON before it is typed.

use oci_spec::runtime::{
    Capability, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
};
use serde_json::{Value, json};

/// Changes a configuration.
///
/// # Errors
/// What runc refuses at this point, in its words.
pub(super) fn spec(json: &mut Value, warnings: &mut Vec<String>) -> Result<(), String> {
    device_rules(json);
    page_sizes(json);
    destinations(json, warnings);
    namespace_paths(json);
    intel_rdt(json);
    memory_policy(json)
}

/// Before runtime-spec 1.0 destinations were relative to the root; some configurations still are.
fn destinations(json: &mut Value, warnings: &mut Vec<String>) {
    let mounts = json.get_mut("mounts").and_then(Value::as_array_mut);
    for (index, mount) in mounts.into_iter().flatten().enumerate() {
        let Some(Value::String(path)) = mount.get_mut("destination") else { continue };
        if !path.is_empty() && !path.starts_with('/') {
            warnings.push(format!(
                "mounts[{index}].destination: {path:?} is relative; taken as relative to the root (write it with a /)"
            ));
            path.insert(0, '/');
        }
    }
}

/// An empty path is Go's way to write none.
fn namespace_paths(json: &mut Value) {
    let namespaces = json.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten().filter_map(Value::as_object_mut) {
        if namespace.get("path").is_some_and(|path| path == "") {
            namespace.remove("path");
        }
    }
}

/// The spec's names of two fields are not those that its types have.
fn intel_rdt(json: &mut Value) {
    let rdt = json.pointer_mut("/linux/intelRdt").and_then(Value::as_object_mut);
    if let Some(rdt) = rdt {
        for (name, other) in [("enableCMT", "enableCmt"), ("enableMBM", "enableMbm")] {
            if let Some(value) = rdt.remove(name) {
                rdt.insert(other.to_owned(), value);
            }
        }
    }
}

/// An empty policy is none; words that the kernel does not have are told by name.
fn memory_policy(json: &mut Value) -> Result<(), String> {
    let Some(linux) = json.get_mut("linux").and_then(Value::as_object_mut) else { return Ok(()) };
    let Some(policy) = linux.get("memoryPolicy").and_then(Value::as_object) else { return Ok(()) };
    if policy.is_empty() {
        linux.remove("memoryPolicy");
        return Ok(());
    }
    let mode = policy.get("mode").cloned().unwrap_or_default();
    if serde_json::from_value::<MemoryPolicyModeType>(mode.clone()).is_err() {
        return Err(format!("linux.memoryPolicy.mode: invalid memory policy mode {mode}"));
    }
    let flags = policy.get("flags").and_then(Value::as_array);
    for flag in flags.into_iter().flatten() {
        if serde_json::from_value::<MemoryPolicyFlagType>(flag.clone()).is_err() {
            return Err(format!("linux.memoryPolicy.flags: invalid memory policy flag {flag}"));
        }
    }
    let whole = Value::Object(policy.clone());
    match serde_json::from_value::<LinuxMemoryPolicy>(whole) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("linux.memoryPolicy: invalid memory policy: {e}")),
    }
}

/// Capabilities that this build has no name for are left out, as runc does: an engine may be newer
/// than its runtime.
pub(super) fn process(process: &mut Value, prefix: &str, warnings: &mut Vec<String>) {
    scheduler(process);
    if let Some(process) = process.as_object_mut() {
        process.entry("user").or_insert_with(|| json!({ "uid": 0, "gid": 0 }));
        if let Some(priority) = process.get_mut("ioPriority").and_then(Value::as_object_mut) {
            priority.entry("priority").or_insert_with(|| 0.into());
        }
    }
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else {
        return;
    };
    for (set, names) in sets {
        let Some(names) = names.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
            // What is no string at all is for the typed reading to refuse.
            let keep = known || !name.is_string();
            if !keep {
                let dot = if prefix.is_empty() { "" } else { "." };
                warnings.push(format!(
                    "{prefix}{dot}capabilities.{set}: {name} is not known to this version; ignored"
                ));
            }
            keep
        });
    }
}

/// The spec's names of two flags of the scheduler are not those that its types have.
fn scheduler(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let other = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = other.into();
    }
}

/// `pagesize`, as some write it: Go reads names of fields in any case.
fn page_sizes(json: &mut Value) {
    let limits = json.pointer_mut("/linux/resources/hugepageLimits").and_then(Value::as_array_mut);
    for limit in limits.into_iter().flatten().filter_map(Value::as_object_mut) {
        if !limit.contains_key("pageSize")
            && let Some(size) = limit.remove("pagesize")
        {
            limit.insert("pageSize".to_owned(), size);
        }
    }
}

/// A device rule for all types may have the type "" (Go's way to write "none").
fn device_rules(json: &mut Value) {
    let rules = json.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
        if rule.get("type").is_some_and(|t| t == "") {
            rule.remove("type");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_for_nothing() {
        let mut json = json!({"linux": {
            "namespaces": [{"type": "mount", "path": ""}, {"type": "user", "path": "/p"}],
            "memoryPolicy": {},
            "resources": {"devices": [{"allow": false, "type": "", "access": "rwm"}],
                "hugepageLimits": [{"pagesize": "2MB", "limit": 0}]},
        }});
        spec(&mut json, &mut Vec::new()).unwrap();
        assert_eq!(
            json["linux"],
            json!({
                "namespaces": [{"type": "mount"}, {"type": "user", "path": "/p"}],
                "resources": {"devices": [{"allow": false, "access": "rwm"}],
                    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
            })
        );
        let mut process_json = json!({"args": ["a"], "cwd": "/"});
        process(&mut process_json, "", &mut Vec::new());
        assert_eq!(process_json["user"], json!({"uid": 0, "gid": 0}));
    }

    #[test]
    fn relative_destinations_begin_at_the_root() {
        let mut json = json!({"mounts": [{"destination": "tmp/a"}, {"destination": "/b"}]});
        let mut warnings = Vec::new();
        spec(&mut json, &mut warnings).unwrap();
        assert_eq!(json, json!({"mounts": [{"destination": "/tmp/a"}, {"destination": "/b"}]}));
        assert!(warnings[0].starts_with("mounts[0].destination: \"tmp/a\""), "{warnings:?}");
    }

    #[test]
    fn memory_policies_that_cannot_be() {
        for (policy, words) in [
            (json!({"mode": "INTERLEAVE"}), "invalid memory policy mode"),
            (json!({"nodes": "0"}), "invalid memory policy mode"),
            (json!({"mode": "MPOL_BIND", "flags": ["x"]}), "invalid memory policy flag"),
        ] {
            let error =
                spec(&mut json!({"linux": {"memoryPolicy": policy}}), &mut Vec::new()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
