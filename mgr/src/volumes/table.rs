//! Which directories of a container hold stores of inner engines (data).

/// A store that needs a real file system under it: engines keep layers there and mount overlays over
/// them, which the kernel refuses on top of the container's own overlay.
#[derive(Debug)]
pub struct StoreKind {
    /// Name of the volume's directory on the host.
    pub name: &'static str,
    /// Where the store is in the container.
    pub destination: &'static str,
    /// Programs that use it: if the image has one of them, a volume is wanted before the directory
    /// exists.
    pub programs: &'static [&'static str],
    /// Mode of a store that the image does not have; the one that the engine itself would make.
    pub mode: u32,
}

/// All known stores.
pub const STORES: &[StoreKind] = &[
    StoreKind {
        name: "docker",
        destination: "/var/lib/docker",
        programs: &["dockerd"],
        mode: 0o710,
    },
    StoreKind {
        name: "containerd",
        destination: "/var/lib/containerd",
        programs: &["containerd"],
        mode: 0o711,
    },
    StoreKind {
        name: "containers",
        destination: "/var/lib/containers",
        programs: &["podman", "buildah", "crio"],
        mode: 0o755,
    },
    StoreKind {
        name: "kubelet",
        destination: "/var/lib/kubelet",
        programs: &["kubelet"],
        mode: 0o755,
    },
    StoreKind {
        name: "rancher",
        destination: "/var/lib/rancher",
        programs: &["k3s", "rke2"],
        mode: 0o755,
    },
    StoreKind { name: "k0s", destination: "/var/lib/k0s", programs: &["k0s"], mode: 0o755 },
    StoreKind {
        name: "buildkit",
        destination: "/var/lib/buildkit",
        programs: &["buildkitd"],
        mode: 0o711,
    },
    // The manager's own data, for a system container in the system container.
    StoreKind {
        name: "sysbox",
        destination: "/var/lib/sysbox",
        programs: &["sysbox-mgr"],
        mode: 0o711,
    },
    StoreKind { name: "crio", destination: "/var/lib/crio", programs: &["crio"], mode: 0o755 },
];

/// Where programs are looked for in the image.
pub const PROGRAM_DIRS: &[&str] =
    &["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin"];
