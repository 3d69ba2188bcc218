//! Keeps the FUSE device open while the daemon is away.
//!
//! The file system lives as long as someone has the device open. Under systemd that is systemd (its
//! file descriptor store); otherwise a small process, `sysbox-fs hold`, which does nothing but keep
//! the device and give it to the next daemon.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sysbox_ipc::{Connection, Listener};

/// How long the holder may take to answer or to start.
const PATIENCE: Duration = Duration::from_secs(5);
/// Beginning of the descriptor's name in systemd's store; the agreed flags follow in hexadecimal.
const NAME: &str = "fuse-";

/// A device that was kept, and the flags that its connection agreed on with the kernel.
#[derive(Debug)]
pub struct Held {
    /// `/dev/fuse`.
    pub device: OwnedFd,
    /// Agreed flags.
    pub flags: u64,
}

/// What the holder is asked.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(enumeration = "Call", tag = "1")]
    call: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Call {
    Unknown = 0,
    /// Send the device.
    Give = 1,
    /// Let go of the device and end.
    End = 2,
}

/// The holder's answer to `Give`; the device comes with it.
#[derive(Clone, PartialEq, prost::Message)]
struct Given {
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(uint64, tag = "2")]
    flags: u64,
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("sysfs-hold.sock")
}

/// The device of an earlier daemon, if someone kept it.
pub fn find(run_dir: &Path) -> Option<Held> {
    from_service_manager().or_else(|| from_holder(run_dir))
}

fn from_service_manager() -> Option<Held> {
    let passed = sd_notify::listen_fds_with_names().ok()?;
    let (number, flags) = passed.into_iter().find_map(|(number, name)| {
        Some((
            number,
            u64::from_str_radix(name.strip_prefix(NAME)?, 16).ok()?,
        ))
    })?;
    let device = sysbox_kernel::fuse::passed_descriptor(number).ok()?;
    Some(Held { device, flags })
}

fn from_holder(run_dir: &Path) -> Option<Held> {
    let connection = Connection::connect(&socket(run_dir)).ok()?;
    connection.set_timeout(Some(PATIENCE)).ok()?;
    connection
        .send(
            &Ask {
                call: Call::Give as i32,
            },
            &[],
        )
        .ok()?;
    let mut answer = connection.receive::<Given>().ok()??;
    Some(Held {
        device: answer.fds.pop()?,
        flags: answer.message.flags,
    })
}

/// Has the device kept from now on. Without that the daemon works, but the containers' files do not
/// outlive it.
pub fn keep(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let store_size = std::env::var("FDSTORE")
        .ok()
        .and_then(|n| n.parse::<u32>().ok());
    if store_size.is_some_and(|n| n > 0) {
        let name = format!("{NAME}{flags:x}");
        let state = [
            sd_notify::NotifyState::FdStore,
            sd_notify::NotifyState::FdName(&name),
        ];
        return sd_notify::notify_with_fds(&state, &[device]);
    }
    start_holder(run_dir, device, flags)
}

fn start_holder(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let mut holder = Command::new("/proc/self/exe");
    holder
        .arg0("sysbox-fs")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("hold")
        .arg(format!("{flags:x}"));
    holder.env_clear().current_dir("/");
    // The device is the holder's standard input.
    holder
        .stdin(device.try_clone_to_owned()?)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = holder.spawn()?;
    std::thread::Builder::new()
        .name("holder".into())
        .spawn(move || {
            let status = child.wait();
            tracing::warn!("the process that keeps the FUSE device has ended: {status:?}");
        })?;
    let deadline = Instant::now() + PATIENCE;
    while Connection::connect(&socket(run_dir)).is_err() {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the holder did not start",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Tells the holder, if there is one, to end; systemd drops what it holds by itself when the
/// service is stopped.
pub fn release(run_dir: &Path) {
    if let Ok(connection) = Connection::connect(&socket(run_dir)) {
        let _ = connection.send(
            &Ask {
                call: Call::End as i32,
            },
            &[],
        );
        // Closing the connection is the answer.
        let _ = connection.set_timeout(Some(PATIENCE));
        let _ = connection.receive::<Given>();
    }
}

/// The holder process: keeps its standard input until it is told to end.
pub fn hold(run_dir: &Path, flags: u64) -> io::Result<()> {
    // Signals for the daemon's session are not for the holder.
    rustix::process::setsid()?;
    let device = std::io::stdin().as_fd().try_clone_to_owned()?;
    // The copy is for passing on; the original must not keep the connection up after the end.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let path = socket(run_dir);
    let listener = Listener::bind(&path)?;
    loop {
        let connection = listener.accept()?;
        connection.set_timeout(Some(PATIENCE))?;
        let Ok(Some(ask)) = connection.receive::<Ask>() else {
            continue;
        };
        match ask.message.call() {
            Call::Give => {
                let answer = Given {
                    protocol: sysbox_ipc::PROTOCOL,
                    flags,
                };
                let _ = connection.send(&answer, &[device.as_fd()]);
            }
            Call::End => {
                let _ = std::fs::remove_file(&path);
                return Ok(());
            }
            Call::Unknown => {}
        }
    }
}
