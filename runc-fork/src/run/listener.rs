//! Who answers the calls that a container's seccomp filter hands over.
//!
//! The kernel allows one listener for each process, whatever filters it has. It is the manager's, for
//! the mount broker, unless the spec's own profile has `SCMP_ACT_NOTIFY`: then it belongs to the agent
//! behind `linux.seccomp.listenerPath`, and the container is without the broker.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oci_spec::runtime as oci;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde_json::json;
use sysbox_ipc::MgrClient;

use crate::log;

/// Takes a listener.
pub enum Taker<'a> {
    /// The mount broker.
    Broker {
        /// Connection to the manager.
        manager: &'a MgrClient,
        /// The container's id for it.
        id: String,
    },
    /// An agent of the user's.
    Agent {
        /// `linux.seccomp.listenerPath`
        path: PathBuf,
        /// `linux.seccomp.listenerMetadata`
        metadata: String,
        /// The container, for the agent.
        state: oci::State,
    },
}

/// The agent of a profile that has one; `None`: the listener is the broker's.
pub fn agent(profile: Option<&oci::LinuxSeccomp>, state: oci::State) -> Option<Taker<'static>> {
    let profile = profile.filter(|profile| sysbox_seccomp::wants_own_listener(profile))?;
    log::warn(
        "linux.seccomp: the profile has a listener of its own, so the mount broker has none (the \
         kernel allows one): new proc and sysfs mounts and device nodes inside are refused",
    );
    Some(Taker::Agent {
        path: profile.listener_path().clone().unwrap_or_default(),
        metadata: profile.listener_metadata().clone().unwrap_or_default(),
        state,
    })
}

impl Taker<'_> {
    /// Takes descriptor `number` out of the process that installed the filter and hands it over.
    pub fn take(&self, process: &OwnedFd, pid: i32, number: &str) -> Result<()> {
        let number = number.parse().context("descriptor of the seccomp listener")?;
        let listener = pidfd_getfd(process, number, PidfdGetfdFlags::empty())
            .context("take the seccomp listener from the new process")?;
        match self {
            Self::Broker { manager, id } => {
                Ok(manager.attach_listener(id, listener.as_fd(), process.as_fd())?)
            }
            Self::Agent { path, metadata, state } => {
                let message = process_state(pid, metadata, state)?;
                send(path, &message, &listener).with_context(|| {
                    format!(
                        "failed to connect with seccomp agent specified in the seccomp profile ({})",
                        path.display()
                    )
                })
            }
        }
    }
}

/// "Container Process State" of the runtime-spec.
fn process_state(pid: i32, metadata: &str, state: &oci::State) -> Result<Vec<u8>> {
    let mut state = state.clone();
    if state.pid().is_none() {
        state.set_pid(Some(pid));
    }
    Ok(serde_json::to_vec(&json!({
        "ociVersion": state.version(),
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": metadata,
        "state": state,
    }))?)
}

fn send(path: &std::path::Path, message: &[u8], listener: &OwnedFd) -> Result<()> {
    let mut stream = UnixStream::connect(path).context("connect")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = sendmsg(&stream, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)
        .with_context(|| format!("send descriptor {}", listener.as_raw_fd()))?;
    // The descriptor goes with the first byte; the rest of a long state follows.
    stream.write_all(&message[sent..]).context("send the container's state")
}
