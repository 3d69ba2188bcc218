//! Pressure triggers (Documentation/accounting/psi.rst): who writes "some 150000 1000000" to a file of
//! `/proc/pressure` and keeps it open is woken by poll(2) when its machine's tasks lost more than that.
//!
//! The container's machine is its cgroup, whose file takes the same words from who may write to it. The
//! kernel wakes us there, and we wake the one who polls. Only the thread that opens those files has the
//! right to write to them; it is asked for one at a time, and gives the open file back.
//!
//! A trigger lives as long as the open file, and ends with this daemon: who polls then is told `POLLERR`, as
//! when a cgroup is removed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::PollNotifier;
use rustix::event::epoll;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::sandbox;

/// Triggers that a container may have at once; each may cost a thread of the kernel.
const AT_MOST: usize = 16;
/// Longest text that can be a trigger.
const LONGEST: usize = 64;

/// All triggers, by the handle of the open file that they belong to.
#[derive(Debug, Clone)]
pub struct Triggers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoll: std::os::fd::OwnedFd,
    opener: Mutex<Sender<Order>>,
    triggers: Mutex<HashMap<u64, Trigger>>,
}

#[derive(Debug)]
struct Trigger {
    /// The container.
    key: u32,
    /// Our own trigger, on the cgroup's file. Closing it ends it.
    _file: File,
    /// It went off, and nobody has been told yet.
    fired: bool,
    /// Who waits.
    waiting: Option<PollNotifier>,
}

/// A trigger to be made.
struct Order {
    path: PathBuf,
    text: Vec<u8>,
    reply: Sender<io::Result<File>>,
}

impl Triggers {
    /// Starts the thread that makes triggers. To be called with all rights, of which it keeps what it needs.
    ///
    /// # Errors
    /// No thread or no epoll set can be made.
    pub fn start() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (opener, orders) = channel();
        std::thread::Builder::new().name("triggers".into()).spawn(move || open_all(&orders))?;
        let (opener, triggers) = (Mutex::new(opener), Mutex::default());
        Ok(Self(Arc::new(Shared { epoll, opener, triggers })))
    }

    /// Starts the thread that waits for triggers to go off.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn watch(&self) -> io::Result<()> {
        let shared = self.0.clone();
        std::thread::Builder::new().name("pressure".into()).spawn(move || shared.watch())?;
        Ok(())
    }

    /// Makes a trigger for an open file of container `key`, as `text` says, on the pressure file `path`
    /// of its cgroup.
    ///
    /// # Errors
    /// `EBUSY`: the open file has one; `ENOSPC`: the container has too many; what the kernel says to
    /// the text, `EINVAL` mostly.
    pub fn set(&self, handle: u64, key: u32, path: &Path, text: &[u8]) -> io::Result<()> {
        if text.len() > LONGEST {
            return Err(Errno::INVAL.into());
        }
        {
            let triggers = self.0.lock();
            if triggers.contains_key(&handle) {
                return Err(Errno::BUSY.into());
            }
            if triggers.values().filter(|trigger| trigger.key == key).count() >= AT_MOST {
                return Err(Errno::NOSPC.into());
            }
        }
        let (reply, answer) = channel();
        let order = Order { path: path.to_owned(), text: text.to_owned(), reply };
        let gone = |_| io::Error::from(Errno::IO);
        let opener = self.0.opener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        opener.send(order).map_err(|_| Errno::IO)?;
        let file = answer.recv().map_err(gone)??;
        let data = epoll::EventData::new_u64(handle);
        let mut triggers = self.0.lock();
        epoll::add(&self.0.epoll, &file, data, epoll::EventFlags::PRI)?;
        triggers.insert(handle, Trigger { key, _file: file, fired: false, waiting: None });
        Ok(())
    }

    /// Whether the trigger of an open file went off since this was last asked; none if it has no
    /// trigger. `waiting` is told when it does.
    pub fn poll(&self, handle: u64, waiting: Option<PollNotifier>) -> Option<bool> {
        let mut triggers = self.0.lock();
        let trigger = triggers.get_mut(&handle)?;
        if waiting.is_some() {
            trigger.waiting = waiting;
        }
        Some(std::mem::take(&mut trigger.fired))
    }

    /// Ends the trigger of an open file, if it has one.
    pub fn close(&self, handle: u64) {
        let ended = self.0.lock().remove(&handle);
        // Outside of the lock: the kernel may have to stop a thread of its own.
        drop(ended);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Trigger>> {
        self.triggers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut events = Vec::with_capacity(16);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!("waiting for pressure: {error}"),
            }
            for event in &events {
                let (handle, flags) = (event.data.u64(), event.flags);
                let waiting = self.lock().get_mut(&handle).and_then(|trigger| {
                    trigger.fired = true;
                    trigger.waiting.take()
                });
                if let Some(Err(error)) = waiting.map(PollNotifier::notify) {
                    tracing::debug!("telling of pressure: {error}");
                }
                let removed = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
                if flags.intersects(removed) {
                    // The cgroup is gone, and would be said to be so without end.
                    self.lock().remove(&handle);
                }
            }
        }
    }
}

/// Opens pressure files and makes triggers on them, until the daemon ends.
fn open_all(orders: &Receiver<Order>) {
    if let Err(error) = sandbox::enter_for_triggers() {
        return tracing::error!("pressure triggers will not work: giving up rights: {error}");
    }
    for Order { path, text, reply } in orders {
        let _ = reply.send(open(&path, &text));
    }
}

fn open(path: &Path, text: &[u8]) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    file.write_all(text)?;
    Ok(file)
}
