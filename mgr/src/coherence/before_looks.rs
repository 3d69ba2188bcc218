//! Forget before each look, by permission events on what the engine opens to begin with: Docker's overlay2
//! driver the layer's `lower` file, others the root directory of the merged mount.
//!
//! The open(2) of the engine waits for our answer, so an answer always comes, and soon: each refresh
//! runs in its own thread, and after [`PATIENCE`] the open is allowed whether or not it is done. If
//! this process dies, the kernel allows what is pending.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use rustix::fs::{FileType, fstat};

use super::{View, mark, next_events};
use crate::sync::lock;

/// Longest time that an engine's open is held up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Device and inode of what is opened.
type FileId = (u64, u64);
type Views = Mutex<HashMap<FileId, Arc<View>>>;

/// The fanotify group and its thread.
#[derive(Debug)]
pub struct BeforeLooks {
    group: Arc<Fanotify>,
    views: Arc<Views>,
}

impl BeforeLooks {
    /// Makes the group and starts to answer.
    pub fn start() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_CONTENT
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS;
        let event_flags = EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE;
        let group = Arc::new(Fanotify::init(flags, event_flags)?);
        let views = Arc::new(Views::default());
        let (g, v) = (Arc::clone(&group), Arc::clone(&views));
        std::thread::Builder::new().name("looks-before".into()).spawn(move || run(&g, &v))?;
        Ok(Self { group, views })
    }

    /// From now on an open of this file or directory refreshes `view` first.
    pub fn add(&self, opened: BorrowedFd<'_>, view: &Arc<View>) -> io::Result<()> {
        let id = file_id(opened)?;
        lock(&self.views).insert(id, Arc::clone(view));
        self.mark(MarkFlags::FAN_MARK_ADD, opened).inspect_err(|_| {
            lock(&self.views).remove(&id);
        })
    }

    /// Ends that.
    pub fn remove(&self, opened: BorrowedFd<'_>) {
        // Fails if the file was deleted, and the mark with it.
        let _ = self.mark(MarkFlags::FAN_MARK_REMOVE, opened);
        if let Ok(id) = file_id(opened) {
            lock(&self.views).remove(&id);
        }
    }

    fn mark(&self, what: MarkFlags, opened: BorrowedFd<'_>) -> io::Result<()> {
        let kind = FileType::from_raw_mode(fstat(opened)?.st_mode);
        let mut mask = MaskFlags::FAN_OPEN_PERM;
        mask.set(MaskFlags::FAN_ONDIR, kind == FileType::Directory);
        mark(&self.group, what, mask, opened)
    }
}

fn file_id(fd: BorrowedFd<'_>) -> io::Result<FileId> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// An open that waits for our answer.
struct Question {
    /// Taken by whoever answers first: the thread that refreshed, or the reader when time is up.
    event: Mutex<Option<FanotifyEvent>>,
    deadline: Instant,
}

impl Question {
    fn allow(&self, group: &Fanotify) {
        let Some(event) = lock(&self.event).take() else {
            return;
        };
        if let Some(fd) = event.fd() {
            let answer = FanotifyResponse::new(fd, Response::FAN_ALLOW);
            if let Err(e) = group.write_response(answer) {
                tracing::warn!("answering an open by the engine: {e}");
            }
        }
    }

    fn is_answered(&self) -> bool {
        lock(&self.event).is_none()
    }
}

fn run(group: &Arc<Fanotify>, views: &Views) {
    let mut waiting: VecDeque<Arc<Question>> = VecDeque::new();
    loop {
        let now = Instant::now();
        while let Some(oldest) = waiting.front() {
            if oldest.deadline <= now && !oldest.is_answered() {
                tracing::warn!(
                    "a root file system could not be refreshed in time; the engine may see old contents"
                );
                oldest.allow(group);
            }
            if !oldest.is_answered() {
                break;
            }
            waiting.pop_front();
        }
        let timeout = waiting.front().map(|q| q.deadline.saturating_duration_since(now));
        for event in next_events(group, timeout) {
            if let Some(question) = ask(group, views, event) {
                waiting.push_back(question);
            }
        }
    }
}

/// Starts the refresh that an open asks for; allows it at once where there is none to do.
fn ask(group: &Arc<Fanotify>, views: &Views, event: FanotifyEvent) -> Option<Arc<Question>> {
    let id = event.fd().and_then(|fd| file_id(fd).ok());
    let view = id.and_then(|id| lock(views).get(&id).cloned());
    let question =
        Arc::new(Question { event: Mutex::new(Some(event)), deadline: Instant::now() + PATIENCE });
    let (q, g) = (Arc::clone(&question), Arc::clone(group));
    let refreshing = view.and_then(|view| {
        let work = move || {
            view.refresh();
            q.allow(&g);
        };
        std::thread::Builder::new().name("refresh".into()).spawn(work).ok()
    });
    if refreshing.is_none() {
        question.allow(group);
        return None;
    }
    Some(question)
}
