//! The user namespace of another container, for the containers of a pod.
//!
//! An engine that knows of user namespaces names it in the spec. One that does not (Docker's
//! `--network=container:...`, a pod of Podman) only names the network namespace; if that belongs to a
//! container's user namespace, the new container joins this one, too. In one of its own its root would
//! have no rights over the network that it is in: no inner engine, no VPN, no ping.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result};
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Type;
use sysbox_kernel::notify::owner;

/// Opens the user namespace that the container of this spec is to join; `None`: it gets its own.
pub fn to_join(spec: &oci::Spec) -> Result<Option<OwnedFd>> {
    let Some(linux) = spec.linux() else { return Ok(None) };
    let path = |kind: Type| {
        let namespaces = linux.namespaces().iter().flatten();
        namespaces.filter(|n| n.typ() == kind).find_map(|n| n.path().clone())
    };
    if let Some(path) = path(Type::User) {
        let file = File::open(&path)
            .with_context(|| format!("open the user namespace {}", path.display()))?;
        return Ok(Some(file.into()));
    }
    let own_ids = linux.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
    match path(Type::Network) {
        Some(path) if !own_ids => {
            let network = File::open(&path)
                .with_context(|| format!("open the network namespace {}", path.display()))?;
            let owner = owner(network.as_fd())
                .with_context(|| format!("find the owner of {}", path.display()))?;
            Ok((!is_own(&owner)?).then_some(owner))
        }
        _ => Ok(None),
    }
}

/// Whether it is the runtime's own, that of the host.
fn is_own(namespace: &OwnedFd) -> Result<bool> {
    let own = std::fs::metadata("/proc/self/ns/user").context("look at /proc/self/ns/user")?;
    let other = rustix::fs::fstat(namespace).context("look at a user namespace")?;
    #[allow(clippy::unnecessary_cast)] // the types differ between architectures
    Ok((own.dev(), own.ino()) == (other.st_dev as u64, other.st_ino as u64))
}
