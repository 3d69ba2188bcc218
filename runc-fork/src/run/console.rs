//! The pseudo-terminal of a container: made in the container's own devpts, its master sent to the
//! engine.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstatfs, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::plan::ProcessPlan;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS: i64 = 0x1cd1;

/// Who gets the master of a pseudo-terminal, with the console socket that was given.
#[derive(Clone, Debug)]
pub enum Terminal {
    /// The runtime goes away: only whoever listens on the socket.
    Detached(Option<PathBuf>),
    /// The runtime stays in front of the process and keeps it.
    Foreground(Option<PathBuf>),
}

impl Terminal {
    /// Checks the socket against what the process wants (`process.terminal`), in runc's words.
    pub fn check(&self, wanted: bool) -> Result<()> {
        let (detached, socket) = match self {
            Self::Detached(socket) => (true, socket.is_some()),
            Self::Foreground(socket) => (false, socket.is_some()),
        };
        ensure!(
            !(detached && wanted && !socket),
            "cannot allocate tty if runc will detach without setting console socket"
        );
        ensure!(
            !socket || (detached && wanted),
            "cannot use console socket if runc will not detach or allocate tty"
        );
        Ok(())
    }

    /// Hands the master over; returns it if it is for the runtime itself.
    pub fn deliver(&self, master: OwnedFd) -> Result<Option<OwnedFd>> {
        match self {
            Self::Detached(Some(socket)) => {
                // runc sends the terminal's name along; engines only look at the descriptor.
                send_fd(socket, "/dev/ptmx", master.as_fd()).context("send the terminal")?;
                Ok(None)
            }
            _ => {
                // What is written stays as it is until it comes to a terminal of ours, so that a file
                // has no carriage returns. Here, while the process waits, for its first line, too.
                if let Ok(mut settings) = tcgetattr(&master) {
                    settings.output_modes -= OutputModes::ONLCR;
                    // Otherwise lines end as on a terminal, and are still read.
                    let _ = tcsetattr(&master, OptionalActions::Now, &settings);
                }
                Ok(Some(master))
            }
        }
    }
}

/// A new pseudo-terminal.
#[derive(Debug)]
pub struct Console {
    /// For the engine.
    pub master: OwnedFd,
    /// For the process.
    pub slave: OwnedFd,
}

impl Console {
    /// Opens a pseudo-terminal inside the container, for the process's user. What the image or a
    /// process inside has put at /dev/pts is not trusted: it must be a devpts, and the slave is
    /// taken from the master, never by its path.
    pub fn open(plan: &ProcessPlan) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())
            .context("open /dev/pts/ptmx for the terminal")?;
        #[allow(clippy::unnecessary_cast)] // f_type differs between architectures
        let magic = fstatfs(&master)?.f_type as i64;
        ensure!(magic == DEVPTS, "/dev/pts/ptmx in the container is no pseudo-terminal device");
        unlockpt(&master).context("unlock the pseudo-terminal")?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )
        .context("open the slave of the pseudo-terminal")?;
        if let Some((ws_row, ws_col)) = plan.console_size {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&slave, size).context("set the terminal's size")?;
        }
        fchown(&slave, Some(Uid::from_raw(plan.uid)), None::<Gid>)
            .context("give the terminal to the user")?;
        Ok(Self { master, slave })
    }

    /// Makes the slave the controlling terminal and standard input, output and error.
    pub fn adopt(&self) -> Result<()> {
        rustix::process::ioctl_tiocsctty(&self.slave).context("set the controlling terminal")?;
        rustix::stdio::dup2_stdin(&self.slave)?;
        rustix::stdio::dup2_stdout(&self.slave)?;
        rustix::stdio::dup2_stderr(&self.slave)?;
        Ok(())
    }
}

/// Connects to a socket of the engine (`--console-socket`, `--pidfd-socket`) and sends it a
/// descriptor.
pub fn send_fd(socket: &Path, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let stream = SocketType::STREAM;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, stream, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?)
        .with_context(|| format!("connect to the socket {}", socket.display()))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let name = [std::io::IoSlice::new(name.as_bytes())];
    rustix::net::sendmsg(&connection, &name, &mut control, rustix::net::SendFlags::NOSIGNAL)
        .with_context(|| format!("send a descriptor to {}", socket.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_terminals_go_together() {
        let socket = || Some(PathBuf::from("/s"));
        for (terminal, wanted, good) in [
            (Terminal::Detached(None), false, true),
            (Terminal::Detached(None), true, false),
            (Terminal::Detached(socket()), true, true),
            (Terminal::Detached(socket()), false, false),
            (Terminal::Foreground(None), true, true),
            (Terminal::Foreground(None), false, true),
            (Terminal::Foreground(socket()), true, false),
        ] {
            assert_eq!(terminal.check(wanted).is_ok(), good, "{terminal:?} {wanted}");
        }
    }
}
