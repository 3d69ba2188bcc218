//! sd_notify(3) of the container's program, handed on to whoever started the runtime.
//!
//! A service manager that runs the runtime gives it `NOTIFY_SOCKET`, a path of the host that means
//! nothing inside. As runc does it, the container gets a socket of the runtime's in its place; what
//! arrives is sent on, with init's pid on the host as the main process. The runtime waits for `READY=1`
//! when it is going to leave the container alone.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result};
use oci_spec::runtime as oci;

use crate::log;
use crate::state::{Directory, State, is_alive};

/// Where the container sees the directory of the socket.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// How often the container is looked at while nothing arrives.
const TICK: Duration = Duration::from_millis(100);

/// The service manager's socket, if there is one.
fn wanted() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("NOTIFY_SOCKET")?);
    path.is_absolute().then_some(path)
}

fn directory_of(directory: &Directory) -> PathBuf {
    directory.path().join("notify")
}

/// Makes the socket, and adds it to the container's mounts and variables.
pub fn add(spec: &mut oci::Spec, directory: &Directory) -> Result<()> {
    if wanted().is_none() {
        return Ok(());
    }
    let place = directory_of(directory);
    fs::create_dir(&place).with_context(|| format!("make {}", place.display()))?;
    let socket = place.join(NAME);
    // The descriptor may close: `start` binds the name again.
    drop(bind(&socket)?);
    let mut mount = oci::Mount::default();
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    mount
        .set_destination(INSIDE.into())
        .set_typ(Some("bind".into()))
        .set_source(Some(place))
        .set_options(Some(options.to_vec()));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
        process.set_env(Some(env));
    }
    Ok(())
}

fn bind(path: &Path) -> Result<UnixDatagram> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let socket = UnixDatagram::bind(path).with_context(|| format!("bind {}", path.display()))?;
    // For every user of the container.
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        .with_context(|| format!("open {} to the container", path.display()))?;
    Ok(socket)
}

/// The runtime's end while the container is started; `None` where nobody wants to be told.
pub struct Proxy {
    socket: UnixDatagram,
    host: PathBuf,
}

impl Proxy {
    /// Opens it, before the container's program runs.
    pub fn open(directory: &Directory) -> Result<Option<Self>> {
        let Some(host) = wanted() else { return Ok(None) };
        if !directory_of(directory).exists() {
            return Ok(None);
        }
        let socket = bind(&directory_of(directory).join(NAME))?;
        socket.set_read_timeout(Some(TICK)).context("set a timeout")?;
        Ok(Some(Self { socket, host }))
    }

    /// Hands on what comes until the program says that it is ready, or ends.
    pub fn wait_ready(&self, state: &State) {
        let mut buffer = [0; 4096];
        while is_alive(&state.init) {
            let Ok(count) = self.socket.recv(&mut buffer) else { continue };
            let Some(line) = ready_line(&buffer[..count]) else { continue };
            self.tell(&format!("MAINPID={}\n{line}", state.init.pid));
            return;
        }
    }

    fn tell(&self, message: &str) {
        let told = UnixDatagram::unbound().and_then(|s| s.send_to(message.as_bytes(), &self.host));
        if let Err(e) = told {
            log::warn(&format!("tell {} (NOTIFY_SOCKET): {e}", self.host.display()));
        }
    }
}

/// The line that counts: whatever else a container sends (a main pid of its own, descriptors to keep) is
/// not for the host.
fn ready_line(message: &[u8]) -> Option<&'static str> {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1").then_some("READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readiness_is_handed_on() {
        assert_eq!(ready_line(b"STATUS=fine\nREADY=1\nMAINPID=1"), Some("READY=1"));
        assert_eq!(ready_line(b"MAINPID=1\nSTATUS=READY=1"), None);
    }
}
