//! The holder: a small process, `PROGRAM hold`, which does nothing but keep descriptors and give
//! them to the next instance of its daemon.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::{Copies, Daemon, Named};
use crate::{Connection, Listener};

/// How long the holder may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that ends its holder is gone itself by then.
const GRACE: Duration = Duration::from_millis(300);
/// A pause after a holder that could not be started.
const RETRY: Duration = Duration::from_secs(60);
/// Descriptors in one record of an answer.
const BATCH: usize = 8;

/// What the holder is asked.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(enumeration = "Call", tag = "1")]
    call: i32,
    /// Of the descriptor that is meant.
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Call {
    Unknown = 0,
    /// Send duplicates of everything.
    Give = 1,
    /// Let go of everything and end.
    End = 2,
    /// Keep the descriptor that comes with this.
    Put = 3,
    /// Let go of one.
    Remove = 4,
}

/// The holder's answer; for `Give` as many records as it takes.
#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    pid: i32,
    /// Of the descriptors that come with it.
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    /// Another record follows.
    #[prost(bool, tag = "4")]
    more: bool,
}

/// What a holder has.
#[derive(Debug)]
pub struct Given {
    /// Its process id.
    pid: i32,
    /// All descriptors.
    pub fds: Vec<Named>,
}

/// Asks the holder, if there is one, for everything it has.
pub fn give(socket: &Path) -> Option<Given> {
    let connection = ask(socket, Call::Give, "", &[]).ok()?;
    let mut given = Given { pid: 0, fds: Vec::new() };
    loop {
        let answer = connection.receive::<Answer>().ok()??;
        given.pid = answer.message.pid;
        given.fds.extend(answer.message.names.into_iter().zip(answer.fds));
        if !answer.message.more {
            return Some(given);
        }
    }
}

/// Gives a descriptor to the holder.
pub fn put(socket: &Path, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    confirm(&ask(socket, Call::Put, name, &[fd])?)
}

/// Has the holder let go of one descriptor. If there is none, neither is the descriptor.
pub fn remove(socket: &Path, name: &str) {
    let _ = ask(socket, Call::Remove, name, &[]);
}

/// Tells the holder, if there is one, to end, and waits until it has let go of everything.
pub fn end(socket: &Path) {
    if let Ok(connection) = ask(socket, Call::End, "", &[]) {
        // It answers by closing the connection, at its end.
        let _ = connection.receive::<Answer>();
        let _ = std::fs::remove_file(socket);
    }
}

fn ask(socket: &Path, call: Call, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<Connection> {
    let connection = Connection::connect(socket)?;
    connection.set_timeout(Some(PATIENCE))?;
    connection.send(&Ask { call: call as i32, name: name.to_owned() }, fds)?;
    Ok(connection)
}

fn confirm(connection: &Connection) -> io::Result<()> {
    connection.receive::<Answer>()?.map(drop).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Starts a holder, unless there is one, and gives everything to it.
pub fn start(daemon: Daemon, run_dir: &Path, copies: &Copies) -> io::Result<()> {
    let socket = run_dir.join(daemon.socket);
    // Locked to the end: of two that miss the holder, the second finds that of the first.
    let copies = copies.lock().unwrap_or_else(PoisonError::into_inner);
    if give(&socket).is_none() {
        let listener = Listener::bind(&socket)?;
        let mut holder = Command::new("/proc/self/exe");
        holder.arg0(daemon.program).arg("--run-dir").arg(run_dir).arg("hold");
        // It outlives this process: nothing of this one's surroundings is for it, but for its socket,
        // which is its standard input.
        holder.env_clear().current_dir("/");
        holder.stdin(listener.as_fd().try_clone_to_owned()?).stdout(Stdio::null());
        holder.stderr(Stdio::null()).spawn()?;
        // Ours is closed here: nobody would answer a caller if the holder dies at once.
    }
    copies.iter().try_for_each(|(name, fd)| put(&socket, name, fd.as_fd()))
}

/// Starts a new holder whenever the present one dies. It need not be a child of this process.
pub fn watch(daemon: Daemon, run_dir: &Path, copies: &Copies) -> io::Result<()> {
    let (run_dir, copies) = (run_dir.to_owned(), copies.clone());
    let thread = std::thread::Builder::new().name("holder".into());
    thread.spawn(move || {
        loop {
            if let Err(e) = wait_for_end(&run_dir.join(daemon.socket)) {
                tracing::warn!("watching the process that keeps descriptors: {e}");
            }
            std::thread::sleep(GRACE);
            tracing::warn!("the process that keeps descriptors has ended; starting another");
            if let Err(e) = start(daemon, &run_dir, &copies) {
                tracing::error!("what is kept for containers will end with this daemon: {e}");
                std::thread::sleep(RETRY);
            }
        }
    })?;
    Ok(())
}

/// Waits until the holder ends.
fn wait_for_end(socket: &Path) -> io::Result<()> {
    let pid = give(socket).and_then(|given| Pid::from_raw(given.pid));
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, None))?;
    // Only a child can, and must, be reaped.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    Ok(())
}

/// The holder process. Its standard input is the socket that it is to listen on.
///
/// # Errors
/// That is no socket.
pub fn run() -> io::Result<()> {
    // Signals for the daemon's session are not for the holder.
    rustix::process::setsid()?;
    // Whoever is killed for want of memory, let it not be the one without whom all else ends.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
    let listener = Listener::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut kept: Vec<Named> = Vec::new();
    loop {
        let connection = listener.accept()?;
        // Whoever fails to ask or to listen comes again.
        let _ = serve(&connection, &mut kept);
    }
}

fn serve(connection: &Connection, kept: &mut Vec<Named>) -> io::Result<()> {
    connection.set_timeout(Some(PATIENCE))?;
    let Some(mut ask) = connection.receive::<Ask>()? else {
        return Ok(());
    };
    let pid = std::process::id() as i32;
    let done = Answer { pid, ..Answer::default() };
    let name = std::mem::take(&mut ask.message.name);
    match ask.message.call() {
        Call::Give => give_all(connection, kept, &done)?,
        Call::Put => {
            let fd: OwnedFd = ask.fds.pop().ok_or(io::ErrorKind::InvalidInput)?;
            kept.retain(|(other, _)| *other != name);
            kept.push((name, fd));
            connection.send(&done, &[])?;
        }
        Call::Remove => kept.retain(|(other, _)| *other != name),
        // The process ends with the connection still open, so that its end is the answer.
        Call::End => std::process::exit(0),
        Call::Unknown => {}
    }
    Ok(())
}

fn give_all(connection: &Connection, kept: &[Named], done: &Answer) -> io::Result<()> {
    for batch in kept.chunks(BATCH) {
        let names = batch.iter().map(|(name, _)| name.clone()).collect();
        let fds: Vec<_> = batch.iter().map(|(_, fd)| fd.as_fd()).collect();
        connection.send(&Answer { names, more: true, ..done.clone() }, &fds)?;
    }
    connection.send(done, &[])
}
