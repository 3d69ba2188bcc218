//! The work: what is done for a request, a file a kind.

mod around;
mod attach;
mod covered;
mod empty;
mod emulated;
mod lift;
mod mknod;
mod mount;
mod new_proc;
mod new_sysfs;
mod options;
mod place;
mod remount;
mod sysinfo;
mod umount;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sysbox_kernel::notify::{Answer, Listener, NamespaceId, Notification, Taking};

use super::Container;
use super::caller::{Caller, read_string};
use super::decide::{self, MountAction};
use super::request::{Mount, Request, decode};
use super::worker::Worker;
use crate::metrics;
use attach::Attached;

/// Least time between two lines of the log about one listener.
const QUIET: Duration = Duration::from_secs(10);

/// What is known of the sender of a request beforehand.
#[derive(Debug)]
pub struct Origin {
    /// Its container.
    pub container: Arc<Container>,
    /// Identity of `container.userns`.
    pub userns: NamespaceId,
    /// Where its requests come from.
    pub listener: Listener,
    /// When the log last heard of it.
    complaint: Mutex<Option<Instant>>,
}

impl Origin {
    pub fn new(container: Arc<Container>, userns: NamespaceId, listener: Listener) -> Self {
        Self { container, userns, listener, complaint: Mutex::default() }
    }

    /// Whether a request may fill a line of the log: the next one can be repeated at will.
    pub fn may_complain(&self) -> bool {
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() > QUIET);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

/// An answer, and what to undo if nobody is there to take it.
///
/// No descriptor of a mount or directory may be left in here: the caller's next call may be an
/// umount, which would find the mount busy.
#[derive(Debug)]
pub struct Served {
    answer: Answer,
    undo: Option<Attached>,
}

impl From<Answer> for Served {
    fn from(answer: Answer) -> Self {
        Self { answer, undo: None }
    }
}

impl From<Errno> for Served {
    fn from(errno: Errno) -> Self {
        Answer::Error(errno.raw_os_error()).into()
    }
}

/// Why a request is not served.
#[derive(Debug)]
enum Stop {
    /// The kernel is to say what it says: the call continues.
    Continue,
    /// The call fails with this error, as it would in the kernel.
    Refuse(Errno),
    /// The broker could not do what it should: the call fails, and the log says why.
    Broken(&'static str, io::Error),
}

type Attempt<T> = Result<T, Stop>;

/// Turns a failure to look at the caller into "let the kernel look".
fn or_continue<T, E>(result: Result<T, E>) -> Attempt<T> {
    result.map_err(|_| Stop::Continue)
}

/// Serves a request and answers it. It may be one that a manager that died had begun to serve.
pub fn serve(worker: &mut Worker, origin: &Origin, taking: &Taking) {
    let begun = Instant::now();
    let notification = taking.request();
    let served = match attempt(worker, origin, taking, &notification) {
        Ok(served) => served,
        Err(Stop::Continue) => Answer::Continue.into(),
        Err(Stop::Refuse(errno)) => errno.into(),
        // Of a caller that was killed in the middle nothing can be found any more.
        Err(Stop::Broken(..)) if !origin.listener.is_valid(notification.id) => Errno::IO.into(),
        Err(Stop::Broken(what, error)) => {
            metrics::BROKEN.increment();
            if origin.may_complain() {
                let container = &origin.container.id;
                tracing::warn!(container, %error, "a mount inside was not served: {what}");
            }
            Errno::IO.into()
        }
    };
    match origin.listener.answer(notification.id, served.answer) {
        Ok(true) => {}
        // The caller was killed, or the deadline has answered for us.
        Ok(false) => {
            if let Some(attached) = served.undo {
                attached.take_back(worker);
            }
        }
        Err(error) => {
            let container = &origin.container.id;
            tracing::warn!(container, %error, "answering a trapped system call");
        }
    }
    let call = decode(&notification).map_or("other", |request| request.name());
    metrics::trapped(call, begun.elapsed());
}

fn attempt(
    worker: &mut Worker,
    origin: &Origin,
    taking: &Taking,
    notification: &Notification,
) -> Attempt<Served> {
    match decode(notification).ok_or(Stop::Continue)? {
        Request::Mount(request) => match decide::mount_action(request.flags) {
            Some(MountAction::New { flags }) => {
                new_mount(worker, origin, taking, Mount { flags, ..request })
            }
            Some(MountAction::Remount { read_only }) => {
                let caller = find(worker, origin, taking)?;
                remount::serve(worker, origin, &caller, request.target_at, read_only)
            }
            None => Err(Stop::Continue),
        },
        Request::Fsopen { name_at } => fsopen(notification, name_at),
        Request::Umount { target_at, flags } => {
            if !decide::is_plain_umount(flags) {
                return Err(Stop::Continue);
            }
            let caller = find(worker, origin, taking)?;
            umount::serve(worker, origin, &caller, target_at, flags)
        }
        Request::Mknod { dir, path_at, mode, device } => {
            decide::device(mode, device).ok_or(Stop::Continue)?;
            let caller = find(worker, origin, taking)?;
            let node = mknod::Node { dir, path_at, mode, device };
            mknod::serve(worker, &caller, &node)
        }
        Request::Sysinfo { to, layout } => {
            let caller = find(worker, origin, taking)?;
            sysinfo::serve(origin, &caller, to, layout)
        }
    }
}

fn new_mount(
    worker: &mut Worker,
    origin: &Origin,
    taking: &Taking,
    request: Mount,
) -> Attempt<Served> {
    // The type comes first, so that everything that is not for us goes on with one look at memory.
    let name = or_continue(read_string(taking.request().tid, request.type_at))?;
    let kind = decide::new_mount(&name.unwrap_or_default()).ok_or(Stop::Continue)?;
    let caller = find(worker, origin, taking)?;
    mount::serve(worker, origin, &caller, kind, &request)
}

/// Programs that use the new mount API are sent to mount(2), which they all fall back to on
/// kernels that lack it.
fn fsopen(notification: &Notification, name_at: u64) -> Attempt<Served> {
    let name = or_continue(read_string(notification.tid, name_at))?;
    match decide::new_mount(&name.unwrap_or_default()) {
        Some(_) => Err(Stop::Refuse(Errno::NOSYS)),
        None => Err(Stop::Continue),
    }
}

fn find<'a>(worker: &Worker, origin: &'a Origin, taking: &'a Taking) -> Attempt<Caller<'a>> {
    let found = Caller::find(&worker.host, &origin.listener, taking, origin.userns);
    or_continue(found)
}
