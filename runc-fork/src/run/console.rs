//! The pseudo-terminal of a container: made in the container's own devpts, its master sent to the
//! engine.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstatfs, openat};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::plan::ProcessPlan;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS: i64 = 0x1cd1;

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

/// Connects to the engine's console socket and sends it the master.
pub fn send_master(socket: &Path, master: OwnedFd) -> Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let stream = SocketType::STREAM;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, stream, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&connection, &SocketAddrUnix::new(socket)?)
        .with_context(|| format!("connect to the console socket {}", socket.display()))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    // runc sends the terminal's name along; engines only look at the descriptor.
    let name = [std::io::IoSlice::new(b"/dev/ptmx")];
    rustix::net::sendmsg(&connection, &name, &mut control, rustix::net::SendFlags::NOSIGNAL)
        .with_context(|| format!("send the terminal to {}", socket.display()))?;
    Ok(())
}
