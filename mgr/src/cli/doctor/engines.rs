//! Engines, and whether they know the runtime.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Check;

/// An engine: its program, where its configuration may be, and what registers the runtime there.
struct Engine {
    name: &'static str,
    programs: &'static [&'static str],
    files: &'static [&'static str],
    remedy: &'static str,
}

const ENGINES: &[Engine] = &[
    Engine {
        name: "Docker",
        programs: &["dockerd"],
        files: &["/etc/docker/daemon.json"],
        remedy: "add {\"runtimes\": {\"sysbox\": {\"path\": \"/usr/bin/sysbox-runc\"}}} to /etc/docker/daemon.json and reload Docker",
    },
    Engine {
        name: "containerd (Kubernetes, nerdctl)",
        programs: &["containerd"],
        files: &["/etc/containerd/config.toml"],
        remedy: "for Kubernetes, add a runtime with BinaryName = \"/usr/bin/sysbox-runc\" to /etc/containerd/config.toml; nerdctl takes --runtime=/usr/bin/sysbox-runc",
    },
    Engine {
        name: "CRI-O",
        programs: &["crio"],
        files: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d"],
        remedy: "add [crio.runtime.runtimes.sysbox-runc] with runtime_path = \"/usr/bin/sysbox-runc\" to a file in /etc/crio/crio.conf.d",
    },
    Engine {
        name: "Podman",
        programs: &["podman"],
        files: &["/etc/containers/containers.conf", "/etc/containers/containers.conf.d"],
        remedy: "add sysbox = [\"/usr/bin/sysbox-runc\"] under [engine.runtimes] in /etc/containers/containers.conf, or use podman --runtime=/usr/bin/sysbox-runc",
    },
];

const DIRECTORIES: &[&str] = &["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// A line for each engine that is installed; one that says so if none is.
pub fn checks() -> Vec<Check> {
    let installed = ENGINES.iter().filter(|engine| engine.programs.iter().any(|p| is_installed(p)));
    let mut checks: Vec<_> = installed.map(check).collect();
    if checks.is_empty() {
        let nothing = Err::<String, _>("no engine was found");
        let remedy = "install Docker, Podman, containerd or CRI-O";
        checks.push(Check::useful("engines", nothing, "someone who starts containers", remedy));
    }
    checks
}

fn check(engine: &Engine) -> Check {
    let registered = engine.files.iter().flat_map(|path| texts(Path::new(path)));
    let file =
        registered.filter(|(_, text)| text.contains("sysbox-runc")).map(|(file, _)| file).next();
    let found = match file {
        Some(file) => Ok(format!("registered in {}", file.display())),
        None => Err("installed, and does not know the runtime"),
    };
    Check::useful(engine.name, found, "`--runtime=sysbox`", engine.remedy)
}

fn is_installed(program: &str) -> bool {
    DIRECTORIES.iter().any(|dir| Path::new(dir).join(program).exists())
}

/// The text of a file, or of all files in a directory.
fn texts(path: &Path) -> Vec<(PathBuf, String)> {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().flat_map(|entry| texts(&entry.path())).collect(),
        Err(_) => {
            fs::read_to_string(path).map(|text| (path.to_owned(), text)).into_iter().collect()
        }
    }
}

/// Where engines keep root file systems, as far as they are there.
pub fn data_roots() -> Vec<(String, PathBuf)> {
    let config = fs::read("/etc/docker/daemon.json").unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    let docker = config["data-root"].as_str().unwrap_or("/var/lib/docker");
    let roots = [
        ("Docker's images", docker),
        ("containerd's images", "/var/lib/containerd"),
        ("Podman's images", "/var/lib/containers"),
    ];
    roots.map(|(what, path)| (what.to_owned(), path.into())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_files_is_read_and_what_is_missing_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.conf"), "sysbox-runc").unwrap();
        assert_eq!(texts(dir.path()), [(dir.path().join("a.conf"), "sysbox-runc".to_owned())]);
        assert!(texts(&dir.path().join("b.conf")).is_empty());
    }
}
