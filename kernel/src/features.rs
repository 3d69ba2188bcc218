//! Newer kernel interfaces, most of which have a fallback, and the switch that does without them.
//!
//! Whether the kernel has something is always found out by trying it where it is needed. On a new
//! kernel the fallbacks (and the errors) would therefore never be seen; tests name them in the environment variable
//! `SYSBOX_WITHOUT` (comma-separated), which is read from the host's side only.

/// Environment variable that names the features to do without.
pub const WITHOUT: &str = "SYSBOX_WITHOUT";

/// A kernel interface that is not on every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// procfs option `pidns` (6.18); before: a child that is born in the pid namespace mounts it.
    ProcPidns,
    /// Overlay layers that are detached mounts, given by descriptor (6.13, 6.15); before: attached
    /// in the builder's namespace and given by path.
    OverlayLayerFds,
    /// `FUSE_NOTIFY_RESEND` (6.9); before: requests pass through a journal that outlives the daemon.
    FuseResend,
    /// ID-mapped tmpfs (6.3); before: `/dev/shm` is a new tmpfs of the same size, and other tmpfs
    /// sources belong to nobody inside.
    IdmappedTmpfs,
    /// ID-mapped mounts, with overlays over them (5.19). There is no other way without: files
    /// would have to be chowned.
    IdmappedMounts,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 5] = [
        Self::ProcPidns,
        Self::OverlayLayerFds,
        Self::FuseResend,
        Self::IdmappedTmpfs,
        Self::IdmappedMounts,
    ];

    /// Its name in [`WITHOUT`].
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcPidns => "proc-pidns",
            Self::OverlayLayerFds => "overlay-layer-fds",
            Self::FuseResend => "fuse-resend",
            Self::IdmappedTmpfs => "idmapped-tmpfs",
            Self::IdmappedMounts => "idmapped-mounts",
        }
    }

    /// Whether it may be tried.
    pub fn may_be_used(self) -> bool {
        let without = std::env::var(WITHOUT).unwrap_or_default();
        without.split(',').all(|name| name.trim() != self.name())
    }
}
