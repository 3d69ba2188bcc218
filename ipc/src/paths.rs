//! Where the daemons meet: the run directory and the sockets in it.

use std::path::PathBuf;

/// Environment variable that moves the run directory (tests, several installations side by side).
pub const RUN_DIR_VARIABLE: &str = "SYSBOX_RUN_DIR";

/// The run directory: `/run/sysbox` unless `SYSBOX_RUN_DIR` says otherwise.
pub fn run_dir() -> PathBuf {
    std::env::var_os(RUN_DIR_VARIABLE)
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/run/sysbox"), PathBuf::from)
}

/// Socket of `sysbox-mgr`.
pub fn mgr_socket() -> PathBuf {
    run_dir().join("sysmgr.sock")
}

/// Socket of the API for people and tools, served by `sysbox-mgr`.
pub fn api_socket() -> PathBuf {
    run_dir().join("sysbox.sock")
}

/// Socket of `sysbox-fs`.
pub fn fs_socket() -> PathBuf {
    run_dir().join("sysfs.sock")
}

/// Mount point of the FUSE file system with the virtualised files.
pub fn fuse_mountpoint() -> PathBuf {
    run_dir().join("fs")
}

/// Directory of a container that holds all its virtualised files under [`flat`] names.
pub const ALL: &str = "all";

/// The name in [`ALL`] of the file with this path: as sysfs does, "!" stands for "/".
pub fn flat(path: &str) -> String {
    path.replace('/', "!")
}
