//! What the spec alone doesn't say: which engine made the bundle, what it was asked for, and what
//! the container runs. Each hint is read from files; nothing is changed.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, open};

use super::Error;
use super::init_system::{InitSystem, recognise};
use super::load::{Loaded, read_bounded};
use super::options::{Options, Stated};

/// Who made the bundle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, for Kubernetes.
    Containerd,
    /// CRI-O, for Kubernetes.
    CriO,
    /// Somebody else, or a person.
    #[default]
    Unknown,
}

impl Engine {
    /// What its containers find in the variable `container`, by which programs know where they are.
    pub fn container_variable(self) -> &'static str {
        match self {
            Self::Docker | Self::Unknown => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "crio",
        }
    }
}

/// The hints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Who made the bundle.
    pub engine: Engine,
    /// `docker run --userns=host`: the spec looks as without.
    pub host_user_namespace: bool,
    /// `docker run --privileged`.
    pub privileged: bool,
    /// The init system that is executed.
    pub init_system: Option<InitSystem>,
    /// Directory that the engine removes when the container (not only its process) is removed.
    pub owner_dir: PathBuf,
    /// What the host has of its kernel's modules, headers and configuration.
    pub kernel_files: Vec<PathBuf>,
}

/// Gathers the hints.
///
/// # Errors
///
/// The root file system can't be opened. Hints that can't be read are merely not there.
pub fn hints(loaded: &Loaded, options: &Options) -> Result<Hints, Error> {
    let spec = &loaded.spec;
    let docker_dir = docker_directory(spec);
    let docker = docker_dir.map(read_host_config).unwrap_or_default();
    let rootfs = open(&loaded.rootfs, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::Read { path: loaded.rootfs.clone(), source: e.into() })?;
    let init_system = match options.init_system {
        Some(Stated::Is(init)) => Some(init),
        Some(Stated::None) => None,
        None => spec.process().as_ref().and_then(|process| recognise(&rootfs, process)),
    };
    Ok(Hints {
        engine: engine(loaded, docker_dir.is_some()),
        host_user_namespace: docker.user_namespace == "host",
        privileged: docker.privileged || looks_privileged(spec),
        init_system,
        owner_dir: owner_directory(&loaded.rootfs, docker_dir),
        kernel_files: kernel_files(Path::new("/"), &rustix::system::uname()),
    })
}

/// Directories below `root` with the modules of this kernel, and its headers where Debian, Red Hat and
/// Arch put them; and the file that says how it was built, if everybody may read it: `kubeadm` refuses a
/// kernel of which it finds none.
fn kernel_files(root: &Path, uname: &rustix::system::Uname) -> Vec<PathBuf> {
    let release = uname.release().to_string_lossy();
    let modules = PathBuf::from(format!("/lib/modules/{release}"));
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    // Links from the modules to what they were built with; Debian splits it in two.
    let links = ["build", "source"].map(|link| std::fs::read_link(below(&modules).join(link)));
    let headers = ["linux-headers-", "kernels/"].map(|kind| format!("/usr/src/{kind}{release}"));
    let all = std::iter::once(modules.clone())
        .chain(headers.map(PathBuf::from))
        .chain(links.into_iter().flatten());
    let mut found: Vec<PathBuf> = Vec::new();
    for path in all {
        let new = !found.iter().any(|seen| path.starts_with(seen));
        if path.is_absolute() && new && below(&path).is_dir() {
            found.push(path);
        }
    }
    let config = PathBuf::from(format!("/boot/config-{release}"));
    let for_everybody = |file: std::fs::Metadata| file.is_file() && file.mode() & 0o004 != 0;
    found.extend(Some(config).filter(|path| below(path).metadata().is_ok_and(for_everybody)));
    found
}

/// `<docker root>/containers/<id>`: Docker mounts three files from there into every container.
fn docker_directory(spec: &Spec) -> Option<&Path> {
    const FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"];
    spec.mounts().iter().flatten().find_map(|mount| {
        let wanted = FILES.iter().any(|file| mount.destination() == Path::new(file));
        let directory = mount.source().as_deref().filter(|_| wanted)?.parent()?;
        let id = directory.file_name()?.to_str()?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_docker = directory.parent()?.file_name()? == "containers";
        (is_id && is_docker && directory.is_absolute()).then_some(directory)
    })
}

/// What `docker run` was asked for.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct HostConfig {
    #[serde(rename = "UsernsMode")]
    user_namespace: String,
    #[serde(rename = "Privileged")]
    privileged: bool,
}

/// Reads it. It only leads to better messages, so a file that can't be understood is the same as
/// none.
fn read_host_config(directory: &Path) -> HostConfig {
    const MAX_SIZE: u64 = 1 << 20;
    let text = read_bounded(&directory.join("hostconfig.json"), MAX_SIZE);
    text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Where containerd keeps the bundles of its tasks; `ctr` and nerdctl leave no other mark.
const CONTAINERD_TASKS: [&str; 2] =
    ["io.containerd.runtime.v2.task", "io.containerd.runtime.v1.linux"];

fn engine(Loaded { spec, bundle, .. }: &Loaded, is_docker: bool) -> Engine {
    let of_containerd =
        || bundle.iter().any(|part| CONTAINERD_TASKS.iter().any(|tasks| part == *tasks));
    let annotations = spec.annotations().iter().flatten();
    let has = |prefix: &str| annotations.clone().any(|(name, _)| name.starts_with(prefix));
    if is_docker {
        Engine::Docker
    } else if has("io.podman.") || has("io.container.manager") {
        Engine::Podman
    } else if has("io.kubernetes.cri-o.") {
        Engine::CriO
    } else if has("io.kubernetes.cri.") || of_containerd() {
        Engine::Containerd
    } else {
        Engine::Unknown
    }
}

/// What `--privileged` leaves in a spec, whichever engine: every device, capabilities over the
/// machine itself, and nothing masked.
fn looks_privileged(spec: &Spec) -> bool {
    use oci_spec::runtime::Capability::{SysAdmin, SysModule, SysRawio};
    let Some(linux) = spec.linux() else {
        return false;
    };
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref());
    let every_device = rules
        .unwrap_or_default()
        .last()
        .is_some_and(|rule| rule.allow() && rule.major().is_none() && rule.minor().is_none());
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|capabilities| capabilities.bounding().as_ref());
    let every_capability =
        bounding.is_some_and(|set| [SysAdmin, SysModule, SysRawio].iter().all(|c| set.contains(c)));
    let none_masked = linux.masked_paths().as_ref().is_none_or(Vec::is_empty);
    every_device && every_capability && none_masked
}

/// For overlay stores the layer (`<store>/overlay2/<layer>/merged` is the root file system); for
/// other stores of Docker its directory of the container; otherwise the root file system itself.
fn owner_directory(rootfs: &Path, docker_dir: Option<&Path>) -> PathBuf {
    let mut parts = rootfs.components().rev();
    let mut part = || match parts.next() {
        Some(Component::Normal(name)) => Some(name),
        _ => None,
    };
    let (last, _layer, store) = (part(), part(), part());
    let is_overlay = store == Some(OsStr::new("overlay2")) || store == Some(OsStr::new("overlay"));
    match rootfs.parent() {
        Some(layer) if is_overlay && last == Some(OsStr::new("merged")) => layer.to_owned(),
        _ => docker_dir.unwrap_or(rootfs).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;
    use crate::spec::fixtures::{DOCKER_PRIVILEGED, docker};

    fn loaded(spec: Spec, rootfs: &Path) -> Loaded {
        let rootfs = rootfs.to_owned();
        Loaded { spec, bundle: "/bundle".into(), rootfs, warnings: Vec::new() }
    }

    /// A Docker bundle whose container directory is in `dir` and holds this host configuration.
    fn with_host_config(dir: &Path, host_config: &str) -> Spec {
        let container = dir.join("containers").join("0123456789abcdef".repeat(4));
        fs::create_dir_all(&container).unwrap();
        fs::write(container.join("hostconfig.json"), host_config).unwrap();
        docker(|json| {
            for mount in json["mounts"].as_array_mut().unwrap() {
                if mount["type"] == "bind" {
                    mount["source"] = json!(container.join("hosts"));
                }
            }
        })
    }

    #[test]
    fn docker_is_asked_what_the_spec_does_not_say() {
        let dir = tempfile::tempdir().unwrap();
        let rows = [
            (r#"{"UsernsMode": "host", "Privileged": false}"#, true, false),
            (r#"{"UsernsMode": "", "Privileged": true}"#, false, true),
            ("{}", false, false),
            ("no json", false, false),
        ];
        for (host_config, host_user_namespace, privileged) in rows {
            let spec = with_host_config(dir.path(), host_config);
            let hints = hints(&loaded(spec, dir.path()), &Options::default()).unwrap();
            assert_eq!(hints.engine, Engine::Docker);
            assert_eq!(hints.host_user_namespace, host_user_namespace, "{host_config}");
            assert_eq!(hints.privileged, privileged, "{host_config}");
        }
    }

    #[test]
    fn a_privileged_spec_is_recognised_without_docker() {
        let mut spec: Value = serde_json::from_str(DOCKER_PRIVILEGED).unwrap();
        spec["mounts"] = json!([]);
        assert!(looks_privileged(&serde_json::from_value(spec).unwrap()));
        assert!(!looks_privileged(&docker(|_| {})));
        let all_caps = docker(|spec| {
            let privileged: Value = serde_json::from_str(DOCKER_PRIVILEGED).unwrap();
            spec["process"]["capabilities"] = privileged["process"]["capabilities"].clone();
        });
        assert!(!looks_privileged(&all_caps));
    }

    #[test]
    fn engines_leave_their_marks() {
        let rows = [
            (json!({"io.container.manager": "libpod"}), Engine::Podman),
            (json!({"io.kubernetes.cri-o.Name": "x"}), Engine::CriO),
            (json!({"io.kubernetes.cri.container-type": "container"}), Engine::Containerd),
            (json!({"my.own": "x"}), Engine::Unknown),
        ];
        for (annotations, expected) in rows {
            let spec = docker(|json| {
                json["annotations"] = annotations;
                json["mounts"] = json!([]);
            });
            let loaded = loaded(spec, Path::new("/rootfs"));
            assert_eq!(engine(&loaded, docker_directory(&loaded.spec).is_some()), expected);
        }
        let mut task = loaded(Spec::default(), Path::new("/rootfs"));
        task.bundle = "/run/containerd/io.containerd.runtime.v2.task/default/a".into();
        assert_eq!(engine(&task, false), Engine::Containerd);
        let spec = docker(|_| {});
        assert!(docker_directory(&spec).unwrap().starts_with("/var/lib/docker/containers"));
    }

    #[test]
    fn the_owner_is_what_the_engine_removes() {
        let container = Path::new("/var/lib/docker/containers/abc");
        let rows = [
            ("/var/lib/docker/overlay2/1f/merged", Some(container), "/var/lib/docker/overlay2/1f"),
            (
                "/var/lib/containers/storage/overlay/1f/merged",
                None,
                "/var/lib/containers/storage/overlay/1f",
            ),
            ("/var/lib/docker/vfs/dir/1f", Some(container), "/var/lib/docker/containers/abc"),
            (
                "/run/containerd/task/moby/1f/rootfs",
                Some(container),
                "/var/lib/docker/containers/abc",
            ),
            ("/srv/bundle/rootfs", None, "/srv/bundle/rootfs"),
            ("/srv/merged", None, "/srv/merged"),
        ];
        for (rootfs, docker_dir, expected) in rows {
            assert_eq!(owner_directory(Path::new(rootfs), docker_dir), Path::new(expected));
        }
    }

    #[test]
    fn what_the_user_states_wins_over_what_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/systemd"), "").unwrap();
        let spec = docker(|json| json["process"]["args"] = json!(["/bin/systemd"]));
        let loaded = loaded(spec, dir.path());
        let with = |init_system| {
            let options = Options { init_system, ..Options::default() };
            hints(&loaded, &options).unwrap().init_system
        };
        assert_eq!(with(None), Some(InitSystem::Systemd));
        assert_eq!(with(Some(Stated::None)), None);
        assert_eq!(with(Some(Stated::Is(InitSystem::S6))), Some(InitSystem::S6));
    }

    #[test]
    fn modules_and_headers_of_this_kernel_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let uname = rustix::system::uname();
        let release = uname.release().to_str().unwrap();
        assert_eq!(kernel_files(dir.path(), &uname), Vec::<PathBuf>::new());
        let modules = format!("/lib/modules/{release}");
        let headers = format!("/usr/src/linux-headers-{release}");
        for path in [&modules[1..], &headers[1..], "usr/src/common", "lib/modules/other"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let link = |name: &str, target: &str| {
            let link = dir.path().join(&modules[1..]).join(name);
            std::os::unix::fs::symlink(target, link).unwrap();
        };
        link("build", &headers);
        link("source", "/usr/src/common");
        let found = kernel_files(dir.path(), &uname);
        let directories = [modules, headers, "/usr/src/common".into()].map(PathBuf::from);
        assert_eq!(found, directories);

        let config = format!("/boot/config-{release}");
        std::fs::create_dir(dir.path().join("boot")).unwrap();
        std::fs::write(dir.path().join(&config[1..]), "CONFIG_NET=y\n").unwrap();
        assert_eq!(kernel_files(dir.path(), &uname)[3..], [PathBuf::from(config.clone())]);
        let secret = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(&config[1..]), secret).unwrap();
        assert_eq!(kernel_files(dir.path(), &uname), directories, "only for the host's root");
    }
}
