//! Stores that an image's configuration files put elsewhere (`data-root` of Docker and the like).
//!
//! The files are the image's, so hostile: they are opened inside the root, read up to a limit, and
//! what they name must be a place for data.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path};

use rustix::fs::{FileType, OFlags, fstat};

use super::need;

/// A file that may say where a store is.
struct Config {
    /// Name of the store, as in the table of stores.
    store: &'static str,
    file: &'static str,
    /// The store's directory, out of the file's text.
    find: fn(&str) -> Option<String>,
}

const CONFIGS: &[Config] = &[
    Config { store: "docker", file: "/etc/docker/daemon.json", find: data_root },
    Config { store: "containerd", file: "/etc/containerd/config.toml", find: root },
    Config { store: "containers", file: "/etc/containers/storage.conf", find: graph_root },
    Config { store: "rancher", file: "/etc/rancher/k3s/config.yaml", find: data_dir },
    Config { store: "rancher", file: "/etc/rancher/rke2/config.yaml", find: data_dir },
];

/// Longest file that is read: a configuration is some kilobytes.
const LONGEST: u64 = 1 << 20;

/// Directories of a system in which nobody keeps a store; those below /var, /opt, /srv, /mnt, /home
/// and the like are fine.
const NOT_BELOW: &[&str] = &[
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp",
    "usr",
];

/// Name of the store and its directory, for every file that puts one elsewhere.
pub fn stores(root: BorrowedFd<'_>) -> impl Iterator<Item = (&'static str, String)> {
    CONFIGS.iter().filter_map(move |config| {
        let path = (config.find)(&read(root, config.file)?)?;
        if is_place(&path) {
            return Some((config.store, path));
        }
        tracing::warn!(file = config.file, path, "is no place for the store of an inner engine");
        None
    })
}

fn read(root: BorrowedFd<'_>, path: &str) -> Option<String> {
    // First by a descriptor that opens nothing: it could be a device or a pipe.
    let found = need::in_root(root, path, OFlags::PATH).ok()?;
    if FileType::from_raw_mode(fstat(&found).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let proc = super::copy::proc_path(std::os::fd::AsFd::as_fd(&found));
    let mut text = String::new();
    File::open(proc).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

fn is_place(path: &str) -> bool {
    let path = Path::new(path);
    let mut names = path.components().skip(1);
    let plain = path.is_absolute() && names.clone().all(|c| matches!(c, Component::Normal(_)));
    let top = names.next().and_then(|c| c.as_os_str().to_str());
    // /var and /home themselves hold other things, too.
    let deep = names.next().is_some() || !matches!(top, Some("var" | "home" | "root"));
    plain && deep && top.is_some_and(|top| !NOT_BELOW.contains(&top))
}

/// Docker: `data-root`, before 17.05 `graph`.
fn data_root(text: &str) -> Option<String> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let value = config.get("data-root").or_else(|| config.get("graph"))?;
    value.as_str().map(str::to_owned)
}

/// containerd: `root` at the top.
fn root(text: &str) -> Option<String> {
    let config: toml::Table = text.parse().ok()?;
    config.get("root")?.as_str().map(str::to_owned)
}

/// Podman, Buildah, CRI-O: `graphroot` of `[storage]`.
fn graph_root(text: &str) -> Option<String> {
    let config: toml::Table = text.parse().ok()?;
    config.get("storage")?.get("graphroot")?.as_str().map(str::to_owned)
}

/// K3s and RKE2: `data-dir` at the top of a YAML file of plain keys.
fn data_dir(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("data-dir:"))?;
    let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("etc/docker/daemon.json", "{\"log-level\": \"info\", \"data-root\": \"/mnt/docker\"}"),
            ("etc/containerd/config.toml", "version = 2\nroot = '/data/containerd'\n[grpc]\n"),
            (
                "etc/containers/storage.conf",
                "[storage]\ndriver = 'overlay'\ngraphroot = \"/srv/c\"\n",
            ),
            ("etc/rancher/k3s/config.yaml", "# x\ndata-dir: \"/opt/k3s\" # here\n"),
            ("etc/rancher/rke2/config.yaml", "token: x\ndata-dir: /etc/rke2\n"),
        ] {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let root = File::open(dir.path()).unwrap();
        let found: Vec<_> = stores(std::os::fd::AsFd::as_fd(&root)).collect();
        let expected = [
            ("docker", "/mnt/docker"),
            ("containerd", "/data/containerd"),
            ("containers", "/srv/c"),
            ("rancher", "/opt/k3s"),
        ];
        assert_eq!(found, expected.map(|(store, path)| (store, path.to_owned())));
    }

    #[test]
    fn a_store_is_not_put_over_the_system() {
        for good in ["/data", "/mnt/docker", "/var/lib/other", "/home/docker"] {
            assert!(is_place(good), "{good}");
        }
        for bad in
            ["", "/", "/var", "/etc/x", "/usr", "data", "/a/../etc", "/proc/1/root", "/tmp/d"]
        {
            assert!(!is_place(bad), "{bad}");
        }
    }

    #[test]
    fn files_that_are_none_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/docker")).unwrap();
        let pipe = dir.path().join("etc/docker/daemon.json");
        let kind = FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert_eq!(stores(std::os::fd::AsFd::as_fd(&root)).count(), 0);
    }
}
