//! How an engine calls a container.
//!
//! Engines do not tell a runtime names, and a name can change (`docker rename`); so it is looked up in
//! the engine's own files whenever somebody asks. Those belong to root of the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// A container's name and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Empty if it has none.
    pub name: String,
    /// docker, podman, cri-o, containerd; empty if it can't be told.
    pub engine: &'static str,
}

/// Annotations that hold a name, and the engine that sets them. With two, it is "first/second".
const ANNOTATIONS: &[(&str, &[&str])] = &[
    ("containerd", &["nerdctl/name"]),
    ("containerd", &["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.container-name"]),
    ("containerd", &["io.kubernetes.cri.sandbox-name"]),
    ("cri-o", &["io.kubernetes.cri-o.Name"]),
    ("cri-o", &["io.kubernetes.pod.name", "io.kubernetes.container.name"]),
    ("podman", &["io.podman.annotations.name"]),
];

/// The name of container `id`. `rootfs`: as the engine mounted it; `annotations`: of its spec.
pub fn find(id: &str, rootfs: &Path, annotations: &BTreeMap<String, String>) -> Name {
    docker(id, rootfs)
        .or_else(|| annotated(annotations))
        .or_else(|| storage(id, rootfs))
        .unwrap_or_default()
}

/// Docker: `DATA-ROOT/containers/ID/config.v2.json`, where the root file system is
/// `DATA-ROOT/overlay2/LAYER/merged` (or the same of another driver), or that of containerd's
/// snapshotter, `DATA-ROOT/rootfs/overlayfs/ID`.
fn docker(id: &str, rootfs: &Path) -> Option<Name> {
    let config = rootfs
        .ancestors()
        .take(4)
        .find_map(|dir| fs::read(dir.join("containers").join(id).join("config.v2.json")).ok())?;
    let config: Value = serde_json::from_slice(&config).ok()?;
    let name = config["Name"].as_str()?.trim_start_matches('/').to_owned();
    Some(Name { name, engine: "docker" })
}

fn annotated(annotations: &BTreeMap<String, String>) -> Option<Name> {
    ANNOTATIONS.iter().find_map(|(engine, keys)| {
        let parts: Option<Vec<&str>> =
            keys.iter().map(|key| annotations.get(*key).map(String::as_str)).collect();
        Some(Name { name: parts?.join("/"), engine })
    })
}

/// Podman and CRI-O keep root file systems by containers/storage:
/// `GRAPH-ROOT/overlay/LAYER/merged`, with names in `GRAPH-ROOT/overlay-containers/containers.json`.
fn storage(id: &str, rootfs: &Path) -> Option<Name> {
    let list = rootfs.ancestors().take(4).find_map(|dir| {
        let of = |driver: &str| fs::read(dir.join(format!("{driver}-containers/containers.json")));
        ["overlay", "vfs", "btrfs"].iter().find_map(|driver| of(driver).ok())
    })?;
    let list: Vec<Value> = serde_json::from_slice(&list).ok()?;
    let own = list.iter().find(|container| container["id"] == id)?;
    let name = own["names"][0].as_str().unwrap_or_default().to_owned();
    Some(Name { name, engine: "podman" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_names_are_in_its_data_root() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("containers/c1");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.v2.json"), r#"{"Name": "/web", "ID": "c1"}"#).unwrap();
        let rootfs = dir.path().join("overlay2/abc/merged");
        let found = find("c1", &rootfs, &BTreeMap::new());
        assert_eq!(found, Name { name: "web".into(), engine: "docker" });
        assert_eq!(find("c2", &rootfs, &BTreeMap::new()), Name::default());
    }

    #[test]
    fn podman_names_are_in_its_storage() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("overlay-containers")).unwrap();
        let list = r#"[{"id": "c0", "names": ["other"]}, {"id": "c1", "names": ["web"]}]"#;
        fs::write(dir.path().join("overlay-containers/containers.json"), list).unwrap();
        let found = find("c1", &dir.path().join("overlay/l1/merged"), &BTreeMap::new());
        assert_eq!(found, Name { name: "web".into(), engine: "podman" });
    }

    #[test]
    fn kubernetes_names_are_annotations() {
        let annotations = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let none = Path::new("/nowhere");
        let pod = ("io.kubernetes.cri.sandbox-name", "pod");
        let inside = annotations(&[pod, ("io.kubernetes.cri.container-name", "app")]);
        assert_eq!(find("x", none, &inside).name, "pod/app");
        assert_eq!(find("x", none, &annotations(&[pod])).name, "pod");
        let nerdctl = find("x", none, &annotations(&[("nerdctl/name", "n")]));
        assert_eq!(nerdctl, Name { name: "n".into(), engine: "containerd" });
    }
}
