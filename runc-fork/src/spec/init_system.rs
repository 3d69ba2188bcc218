//! Which init system a container runs, by what would really be executed.
//!
//! Images start theirs by many names (`/sbin/init`, `/lib/systemd/systemd`, `init`...), mostly
//! symbolic links. The name is therefore looked up as execvp(3) would, inside the root file system,
//! and judged by the file that it ends at.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlinkat};

/// An init system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitSystem {
    /// systemd.
    Systemd,
    /// OpenRC's own init.
    OpenRc,
    /// s6, s6-overlay.
    S6,
    /// runit.
    Runit,
    /// busybox init.
    Busybox,
    /// System V init.
    Sysvinit,
}

impl InitSystem {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Systemd, Self::OpenRc, Self::S6, Self::Runit, Self::Busybox, Self::Sysvinit];

    /// Its name, as in the annotation `io.sysbox.init-system`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::OpenRc => "openrc",
            Self::S6 => "s6",
            Self::Runit => "runit",
            Self::Busybox => "busybox",
            Self::Sysvinit => "sysvinit",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|init| init.name() == name)
    }

    /// The signal that asks it to end the machine, where `SIGTERM` means something else: systemd
    /// re-executes itself on `SIGTERM` and powers off on `SIGRTMIN+3`; busybox reboots on `SIGTERM`
    /// and powers off on `SIGUSR2`.
    pub fn stop_signal(self) -> Option<i32> {
        /// `SIGRTMIN` as the C libraries count: they keep the kernel's first two for themselves.
        const SIGRTMIN: i32 = 34;
        const SIGUSR2: i32 = 12;
        match self {
            Self::Systemd => Some(SIGRTMIN + 3),
            Self::Busybox => Some(SIGUSR2),
            Self::OpenRc | Self::S6 | Self::Runit | Self::Sysvinit => None,
        }
    }

    /// Whether it expects empty tmpfs on /run, /run/lock and /tmp (systemd's container interface).
    /// Images of the others keep things there.
    pub fn wants_tmpfs(self) -> bool {
        self == Self::Systemd
    }
}

/// What the process is, if it is an init system. `rootfs` is the root file system.
pub fn recognise(rootfs: impl AsFd, process: &Process) -> Option<InitSystem> {
    let rootfs = rootfs.as_fd();
    let args = process.args().as_deref().unwrap_or_default();
    let name = Path::new(args.first()?);
    let (typed, file) = candidates(name, process).into_iter().find_map(|path| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(rootfs, &path, flags, Mode::empty(), resolve).ok()?;
        Some((path, file))
    })?;
    let found = resolved_path(&file)?;
    let called = typed.file_name()?.to_str()?;
    let exists = |path: &str| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(rootfs, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok()
    };
    match found.file_name()?.to_str()? {
        "systemd" => Some(InitSystem::Systemd),
        "openrc-init" => Some(InitSystem::OpenRc),
        "s6-svscan" | "s6-linux-init" | "s6-overlay-suexec" => Some(InitSystem::S6),
        "runit" | "runit-init" | "runsvdir" => Some(InitSystem::Runit),
        "busybox" if called == "init" || args.get(1).is_some_and(|a| a == "init") => {
            Some(InitSystem::Busybox)
        }
        // s6-overlay's entry point is a script.
        "init" if exists("/package/admin/s6-overlay") || exists("/etc/s6-overlay") => {
            Some(InitSystem::S6)
        }
        "init" if is_in_sbin(&found) => Some(InitSystem::Sysvinit),
        _ => None,
    }
}

/// Where execvp(3) would look, absolute inside the root file system, in order.
fn candidates(name: &Path, process: &Process) -> Vec<PathBuf> {
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return vec![process.cwd().join(name)];
    }
    let env = process.env().as_deref().unwrap_or_default();
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
    let directories = path.unwrap_or("/bin:/usr/bin").split(':');
    directories.map(|directory| process.cwd().join(directory).join(name)).collect()
}

/// The name that the search ended at.
fn resolved_path(file: &OwnedFd) -> Option<PathBuf> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = readlinkat(rustix::fs::CWD, link, Vec::new()).ok()?;
    target.into_string().ok().map(PathBuf::from)
}

/// System V's init lives there; a program that somebody calls /init or /app/init is something else.
fn is_in_sbin(found: &Path) -> bool {
    found.parent().and_then(Path::file_name).is_some_and(|parent| parent == "sbin")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    fn recognised(layout: &[(&str, &str)], args: &[&str], env: &[&str]) -> Option<InitSystem> {
        let dir = tempfile::tempdir().unwrap();
        for (path, target) in layout {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match *target {
                "" => drop(File::create(path).unwrap()),
                "/" => fs::create_dir(path).unwrap(),
                target => symlink(target, path).unwrap(),
            }
        }
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": args, "env": env});
        recognise(File::open(dir.path()).unwrap(), &serde_json::from_value(process).unwrap())
    }

    #[test]
    fn by_the_file_that_is_executed() {
        use InitSystem::*;
        let debian = [
            ("usr/lib/systemd/systemd", ""),
            ("usr/sbin/init", "/lib/systemd/systemd"),
            ("lib", "usr/lib"),
            ("sbin", "usr/sbin"),
            ("bin/bash", ""),
        ];
        let alpine = [("bin/busybox", ""), ("sbin/init", "/bin/busybox"), ("bin/sh", "busybox")];
        let path = ["PATH=/usr/local/sbin:/usr/sbin"];
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a [&'a str], Option<InitSystem>);
        let rows: [Row<'_>; 16] = [
            (&debian, &["/sbin/init"], &[], Some(Systemd)),
            (&debian, &["/lib/systemd/systemd", "--log-level=debug"], &[], Some(Systemd)),
            (&debian, &["sbin/init"], &[], Some(Systemd)),
            (&debian, &["init"], &path, Some(Systemd)),
            (&debian, &["init"], &[], None),
            (&debian, &["/bin/bash", "-c", "exec /sbin/init"], &[], None),
            (&debian, &["/gone"], &[], None),
            (&debian, &[], &[], None),
            (&alpine, &["/sbin/init"], &[], Some(Busybox)),
            (&alpine, &["busybox", "init"], &["PATH=/bin"], Some(Busybox)),
            (&alpine, &["/bin/sh"], &[], None),
            (&[("sbin/openrc-init", "")], &["/sbin/openrc-init"], &[], Some(OpenRc)),
            (&[("init", ""), ("etc/s6-overlay", "/")], &["/init"], &[], Some(S6)),
            (&[("usr/bin/runsvdir", "")], &["/usr/bin/runsvdir", "/etc/service"], &[], Some(Runit)),
            (&[("sbin/init", "")], &["/sbin/init"], &[], Some(Sysvinit)),
            (&[("init", "")], &["/init"], &[], None),
        ];
        for (layout, args, env, expected) in rows {
            assert_eq!(recognised(layout, args, env), expected, "{args:?}");
        }
    }

    #[test]
    fn links_of_the_image_do_not_lead_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        File::create(outside.path().join("systemd")).unwrap();
        let target = outside.path().join("systemd");
        let layout = [("sbin/init", target.to_str().unwrap())];
        assert_eq!(recognised(&layout, &["/sbin/init"], &[]), None);
        assert_eq!(recognised(&[("sbin/init", "/sbin/init")], &["/sbin/init"], &[]), None);
    }

    #[test]
    fn names_are_unique() {
        for init in InitSystem::ALL {
            assert_eq!(InitSystem::from_name(init.name()), Some(init));
        }
        assert_eq!(InitSystem::Systemd.stop_signal(), Some(37));
    }
}
