//! What the user asks of us beyond the spec: `SYSBOX_*` variables of the container (the names of
//! Sysbox, so that its users switch without editing) and `io.sysbox.*` annotations (Kubernetes,
//! Podman, `docker run --annotation`).
//!
//! An annotation wins over a variable: variables may come from the image, annotations come from
//! who starts the container. An unknown name is an error, since a misspelt wish must not pass
//! silently.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{Error, InitSystem};

/// Prefix of the variables; they are not passed on into the container.
pub const VARIABLE_PREFIX: &str = "SYSBOX_";
/// Prefix of the annotations.
pub const ANNOTATION_PREFIX: &str = "io.sysbox.";

/// The wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Make it a system container. Otherwise "keep my spec, only isolate it": user, cgroup and
    /// time namespaces are added, and nothing else is changed.
    pub system_container: bool,
    /// Give the process the capabilities of the spec instead of all (root) or none (others); `None`
    /// where nothing was said: then the spec decides whose they are, an engine's or a user's.
    pub honor_capabilities: Option<bool>,
    /// Destinations of bind mounts whose sources are not to be ID-mapped.
    pub skip_uid_shift: Vec<PathBuf>,
    /// Refuse the container if a bind mount's source cannot be ID-mapped.
    pub require_id_mapping: bool,
    /// Join the network namespace that the engine has made, instead of having an own one behind it.
    pub join_network: bool,
    /// How many ids the container gets; 0 leaves it to the manager.
    pub id_range_size: u32,
    /// What is executed, if the user says so; otherwise it is recognised.
    pub init_system: Option<Stated>,
    /// What was asked for and has no effect, one line each.
    pub warnings: Vec<String>,
}

/// A stated init system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// None, whatever it looks like.
    None,
    /// This one.
    Is(InitSystem),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            system_container: true,
            honor_capabilities: None,
            skip_uid_shift: Vec::new(),
            require_id_mapping: false,
            join_network: false,
            id_range_size: 0,
            init_system: None,
            warnings: Vec::new(),
        }
    }
}

/// A wish: the annotation and the variable (both without prefix; one may be empty), and what it
/// does.
struct Wish {
    annotation: &'static str,
    variable: &'static str,
    apply: fn(&mut Options, &str) -> Result<(), String>,
}

const WISHES: &[Wish] = &[
    Wish {
        annotation: "system-container",
        variable: "SYSCONT_MODE",
        apply: |options, value| truth(value).map(|truth| options.system_container = truth),
    },
    Wish {
        annotation: "honor-caps",
        variable: "HONOR_CAPS",
        apply: |options, value| truth(value).map(|truth| options.honor_capabilities = Some(truth)),
    },
    Wish {
        annotation: "skip-uid-shift",
        variable: "SKIP_UID_SHIFT",
        apply: |options, value| absolute_paths(value).map(|list| options.skip_uid_shift = list),
    },
    // The name of a flag of Sysbox's manager, for all containers there.
    Wish {
        annotation: "fsuid-map-fail-on-error",
        variable: "FSUID_MAP_FAIL_ON_ERROR",
        apply: |options, value| truth(value).map(|truth| options.require_id_mapping = truth),
    },
    Wish {
        annotation: "join-network",
        variable: "JOIN_NETWORK",
        apply: |options, value| truth(value).map(|truth| options.join_network = truth),
    },
    Wish {
        annotation: "",
        variable: "ID_RANGE_SIZE",
        apply: |options, value| {
            range_size(value, MOST_BY_VARIABLE).map(|size| options.id_range_size = size)
        },
    },
    Wish {
        annotation: "id-range-size",
        variable: "",
        apply: |options, value| {
            range_size(value, u32::MAX).map(|size| options.id_range_size = size)
        },
    },
    Wish {
        annotation: "init-system",
        variable: "",
        apply: |options, value| stated(value).map(|init| options.init_system = Some(init)),
    },
    // Two that Sysbox needed for what works here without them.
    Wish {
        annotation: "ignore-sysfs-chown",
        variable: "IGNORE_SYSFS_CHOWN",
        apply: |options, value| {
            no_effect(options, value, "SYSBOX_IGNORE_SYSFS_CHOWN: chown below /sys is the kernel's")
        },
    },
    Wish {
        annotation: "allow-trusted-xattr",
        variable: "ALLOW_TRUSTED_XATTR",
        apply: |options, value| {
            no_effect(
                options,
                value,
                "SYSBOX_ALLOW_TRUSTED_XATTR: inner overlays keep their marks in user.* attributes",
            )
        },
    },
];

impl Options {
    /// Reads the wishes of a spec as the engine wrote it.
    ///
    /// # Errors
    ///
    /// A name that is not known, or a value that makes no sense for it.
    pub fn of(spec: &Spec) -> Result<Self, Error> {
        let mut options = Self::default();
        let env = spec.process().as_ref().and_then(|process| process.env().as_deref());
        for (name, value) in env.unwrap_or_default().iter().filter_map(|e| e.split_once('=')) {
            if let Some(short) = name.strip_prefix(VARIABLE_PREFIX) {
                let wish = WISHES.iter().find(|w| w.variable == short && !short.is_empty());
                let field = format!("process.env: {name}");
                options.take(wish, field, value, || known(VARIABLE_PREFIX, |w| w.variable))?;
            }
        }
        if let Some(annotations) = spec.annotations() {
            options.take_annotations(annotations)?;
        }
        Ok(options)
    }

    fn take_annotations(&mut self, annotations: &HashMap<String, String>) -> Result<(), Error> {
        for (name, value) in annotations {
            if let Some(short) = name.strip_prefix(ANNOTATION_PREFIX) {
                let wish = WISHES.iter().find(|w| w.annotation == short && !short.is_empty());
                let field = format!("annotations: {name}");
                self.take(wish, field, value, || known(ANNOTATION_PREFIX, |w| w.annotation))?;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        wish: Option<&Wish>,
        field: String,
        value: &str,
        known: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match wish {
            None => Err(Error::field(field, "is not known", format!("known are {}", known()))),
            Some(wish) => {
                (wish.apply)(self, value).map_err(|reason| Error::field(field, reason, ""))
            }
        }
    }
}

fn known(prefix: &str, name: impl Fn(&Wish) -> &'static str) -> String {
    let names = WISHES.iter().map(name).filter(|name| !name.is_empty());
    names.map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
}

fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{value:?} is neither TRUE nor FALSE")),
    }
}

fn absolute_paths(value: &str) -> Result<Vec<PathBuf>, String> {
    let path = |text: &str| match text.starts_with('/') {
        true => Ok(PathBuf::from(text)),
        false => Err(format!("{text:?} is not an absolute path")),
    };
    value.split(',').map(path).collect()
}

/// Most ids that a variable may ask for: an image can set one, and the host's ids are finite.
const MOST_BY_VARIABLE: u32 = 64 * 65536;

/// Debian's nobody is 65534.
const SMALLEST: u32 = 65536;

fn range_size(value: &str, most: u32) -> Result<u32, String> {
    match value.parse() {
        Ok(size) if (SMALLEST..=most).contains(&size) => Ok(size),
        Ok(size) if size > most => Err(format!(
            "{value} are more ids than a variable may ask for ({most}); use the annotation {ANNOTATION_PREFIX}id-range-size"
        )),
        _ => Err(format!("{value:?} is not a number of ids, {SMALLEST} or more")),
    }
}

/// How many ids the container needs for those that its mounts are mapped to, where the spec has no user
/// namespace and so means ids inside; 0 if the usual number will do. What is beyond all reason is no
/// number of ids.
pub fn ids_of_mounts(spec: &Spec) -> u32 {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    if namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User) {
        return 0;
    }
    let mounts = spec.mounts().iter().flatten();
    let maps = mounts.flat_map(|m| [m.uid_mappings(), m.gid_mappings()]).flatten().flatten();
    let ends = maps.map(|map| map.host_id().saturating_add(map.size()));
    let needed = ends.filter(|end| *end <= MOST_BY_VARIABLE).max().unwrap_or(0);
    if needed > SMALLEST { needed.next_multiple_of(SMALLEST) } else { 0 }
}

fn stated(value: &str) -> Result<Stated, String> {
    if value == "none" {
        return Ok(Stated::None);
    }
    InitSystem::from_name(value).map(Stated::Is).ok_or_else(|| {
        let names: Vec<_> = InitSystem::ALL.iter().map(|init| init.name()).collect();
        format!("{value:?} is not an init system; known are none, {}", names.join(", "))
    })
}

fn no_effect(options: &mut Options, value: &str, reason: &str) -> Result<(), String> {
    if truth(value)? {
        options.warnings.push(format!("has no effect and is not needed: {reason}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(env: &[&str], annotations: &[(&str, &str)]) -> Spec {
        let annotations: HashMap<_, _> = annotations.iter().copied().collect();
        serde_json::from_value(json!({
            "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": env},
            "annotations": annotations,
        }))
        .unwrap()
    }

    #[test]
    fn variables_and_annotations_say_the_same() {
        let by_variable = Options::of(&spec(
            &[
                "A=b",
                "SYSBOX_SYSCONT_MODE=FALSE",
                "SYSBOX_SKIP_UID_SHIFT=/a,/b/c",
                "SYSBOX_FSUID_MAP_FAIL_ON_ERROR=TRUE",
            ],
            &[("org.other", "x")],
        ));
        let by_annotation = Options::of(&spec(
            &[],
            &[
                ("io.sysbox.system-container", "false"),
                ("io.sysbox.skip-uid-shift", "/a,/b/c"),
                ("io.sysbox.fsuid-map-fail-on-error", "true"),
            ],
        ));
        let expected = Options {
            system_container: false,
            skip_uid_shift: vec!["/a".into(), "/b/c".into()],
            require_id_mapping: true,
            ..Options::default()
        };
        assert_eq!(by_variable.unwrap(), expected);
        assert_eq!(by_annotation.unwrap(), expected);
    }

    #[test]
    fn an_annotation_wins_over_the_images_variable() {
        let both = spec(&["SYSBOX_HONOR_CAPS=TRUE"], &[("io.sysbox.honor-caps", "false")]);
        assert_eq!(Options::of(&both).unwrap().honor_capabilities, Some(false));
    }

    #[test]
    fn an_image_cannot_ask_for_all_ids_of_the_host() {
        let size = |env: &[&str], annotations: &[(&str, &str)]| {
            Options::of(&spec(env, annotations)).map(|options| options.id_range_size)
        };
        assert_eq!(size(&["SYSBOX_ID_RANGE_SIZE=262144"], &[]).unwrap(), 262_144);
        assert_eq!(size(&[], &[("io.sysbox.id-range-size", "100000000")]).unwrap(), 100_000_000);
        let error = size(&["SYSBOX_ID_RANGE_SIZE=100000000"], &[]).unwrap_err().to_string();
        assert!(error.contains("io.sysbox.id-range-size"), "{error}");
        assert!(size(&["SYSBOX_ID_RANGE_SIZE=1000"], &[]).is_err());
        assert!(size(&[], &[("io.sysbox.", "1")]).is_err());
    }

    #[test]
    fn mounts_that_name_ids_bring_them_along() {
        let needed = |host, size, namespaces: serde_json::Value| {
            let maps = json!([{"containerID": 0, "hostID": host, "size": size}]);
            let mount = json!({"destination": "/a", "uidMappings": maps, "gidMappings": maps});
            let mut spec = json!(spec(&[], &[]));
            spec["mounts"] = json!([mount]);
            spec["linux"] = json!({ "namespaces": namespaces });
            ids_of_mounts(&serde_json::from_value(spec).unwrap())
        };
        assert_eq!(needed(1000, 10, json!([])), 0);
        assert_eq!(needed(100_000, 65536, json!([])), 196_608);
        assert_eq!(needed(100_000, 65536, json!([{"type": "user"}])), 0);
        assert_eq!(needed(1_000_000_000, 65536, json!([])), 0);
    }

    #[test]
    fn the_rest_of_the_annotations() {
        let both = [("io.sysbox.id-range-size", "131072"), ("io.sysbox.init-system", "systemd")];
        let options = Options::of(&spec(&[], &both)).unwrap();
        assert_eq!(options.id_range_size, 131_072);
        assert_eq!(options.init_system, Some(Stated::Is(InitSystem::Systemd)));
        let none = Options::of(&spec(&[], &[("io.sysbox.init-system", "none")])).unwrap();
        assert_eq!(none.init_system, Some(Stated::None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
        let rows: [Row<'_>; 7] = [
            (&["SYSBOX_HONOR_CAP=TRUE"], &[], "known are SYSBOX_SYSCONT_MODE, SYSBOX_HONOR_CAPS"),
            (&["SYSBOX_=1"], &[], "process.env: SYSBOX_: is not known"),
            (&["SYSBOX_HONOR_CAPS=yes"], &[], "\"yes\" is neither TRUE nor FALSE"),
            (&["SYSBOX_SKIP_UID_SHIFT=/a,b"], &[], "\"b\" is not an absolute path"),
            (&[], &[("io.sysbox.honour-caps", "true")], "io.sysbox.honor-caps"),
            (&[], &[("io.sysbox.id-range-size", "100")], "65536 or more"),
            (&[], &[("io.sysbox.init-system", "launchd")], "known are none, systemd"),
        ];
        for (env, annotations, expected) in rows {
            let message = Options::of(&spec(env, annotations)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn options_that_are_not_needed_are_accepted() {
        let env = ["SYSBOX_IGNORE_SYSFS_CHOWN=TRUE", "SYSBOX_ALLOW_TRUSTED_XATTR=FALSE"];
        assert_eq!(Options::of(&spec(&env, &[])).unwrap().warnings.len(), 1);
    }
}
