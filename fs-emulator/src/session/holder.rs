//! The holder: a small process, `sysbox-fs hold`, which does nothing but keep the FUSE device and
//! give it to the next daemon.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use sysbox_ipc::{Connection, Listener};

use super::hold::Held;

/// How long the holder may take to answer or to start.
const PATIENCE: Duration = Duration::from_secs(5);

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
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(uint64, tag = "2")]
    flags: u64,
}

fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("sysfs-hold.sock")
}

/// Asks the holder, if there is one, for the device.
pub fn ask(run_dir: &Path) -> Option<Held> {
    let (given, device) = call_give(run_dir)?;
    Some(Held { device, flags: given.flags })
}

fn call_give(run_dir: &Path) -> Option<(Given, OwnedFd)> {
    let connection = Connection::connect(&socket(run_dir)).ok()?;
    connection.set_timeout(Some(PATIENCE)).ok()?;
    connection.send(&Ask { call: Call::Give as i32 }, &[]).ok()?;
    let mut answer = connection.receive::<Given>().ok()??;
    Some((answer.message, answer.fds.pop()?))
}

/// Starts a holder of `device` and watches over it.
pub fn start(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    spawn(run_dir, device, flags)?;
    watch(run_dir, &device.try_clone_to_owned()?, flags)
}

/// Starts a holder and waits until it answers.
fn spawn(run_dir: &Path, device: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let mut holder = Command::new("/proc/self/exe");
    holder.arg0("sysbox-fs").arg("--run-dir").arg(run_dir);
    holder.arg("hold").arg(format!("{flags:x}"));
    // It outlives this process: nothing of this one's surroundings is for it, but for the device,
    // which is its standard input.
    holder.env_clear().current_dir("/");
    holder.stdin(device.try_clone_to_owned()?).stdout(Stdio::null()).stderr(Stdio::null());
    holder.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while call_give(run_dir).is_none() {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the holder did not start"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Starts a new holder whenever the present one dies. It need not be a child of this process.
pub fn watch(run_dir: &Path, device: &OwnedFd, flags: u64) -> io::Result<()> {
    let (run_dir, device) = (run_dir.to_owned(), device.try_clone()?);
    let thread = std::thread::Builder::new().name("holder".into());
    thread.spawn(move || {
        loop {
            if let Err(e) = wait_for_end(&run_dir) {
                tracing::warn!("watching the process that keeps the FUSE device: {e}");
            }
            // At a planned end, this process is gone before the holder is missed.
            std::thread::sleep(Duration::from_secs(1));
            tracing::warn!("the process that keeps the FUSE device has ended; starting another");
            if let Err(e) = spawn(&run_dir, device.as_fd(), flags) {
                tracing::error!("the files of containers will not outlive this daemon: {e}");
                std::thread::sleep(Duration::from_secs(60));
            }
        }
    })?;
    Ok(())
}

/// Waits until the holder ends.
fn wait_for_end(run_dir: &Path) -> io::Result<()> {
    let pid = call_give(run_dir).and_then(|(given, _)| Pid::from_raw(given.pid));
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, None))?;
    // Only a child can, and must, be reaped.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    Ok(())
}

/// Tells the holder, if there is one, to end, and waits until it has let go of the device.
pub fn end(run_dir: &Path) {
    if let Ok(connection) = Connection::connect(&socket(run_dir)) {
        let _ = connection.set_timeout(Some(PATIENCE));
        let _ = connection.send(&Ask { call: Call::End as i32 }, &[]);
        // It answers by closing the connection, at its end.
        let _ = connection.receive::<Given>();
    }
}

/// The holder process: keeps its standard input until it is told to end.
///
/// # Errors
/// It can't listen on its socket.
pub fn run(run_dir: &Path, flags: u64) -> io::Result<()> {
    // Signals for the daemon's session are not for the holder.
    rustix::process::setsid()?;
    // Whoever is killed for want of memory, let it not be the one without whom all files end.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    let device = io::stdin().as_fd().try_clone_to_owned()?;
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
                let given = Given { pid: std::process::id() as i32, flags };
                let _ = connection.send(&given, &[device.as_fd()]);
            }
            Call::End => {
                let _ = std::fs::remove_file(&path);
                // The process ends with the connection still open, so that its end is the answer.
                std::process::exit(0);
            }
            Call::Unknown => {}
        }
    }
}
