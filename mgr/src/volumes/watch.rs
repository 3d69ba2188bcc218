//! Notices at once when the owner of a stopped container's volumes is removed (inotify).
//!
//! This is for speed only: a sweep over all owners runs at intervals and finds what was missed.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::sync::lock;

/// The owners that are watched.
#[derive(Debug)]
pub struct OwnerWatch {
    inotify: Arc<OwnedFd>,
    /// Watch descriptor to the containers that have this owner (those of a pod may share one).
    watched: Arc<Mutex<HashMap<i32, Vec<String>>>>,
}

impl OwnerWatch {
    /// Starts the thread; `removed` is called with a container's id when its owner went away.
    pub fn start(removed: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let watched = Arc::new(Mutex::new(HashMap::new()));
        let (fd, map) = (Arc::clone(&inotify), Arc::clone(&watched));
        std::thread::Builder::new().name("owners".into()).spawn(move || run(&fd, &map, removed))?;
        Ok(Self { inotify, watched })
    }

    /// Watches `owner` for container `id`. If it is gone already the next sweep finds that.
    pub fn watch(&self, id: &str, owner: &Path) {
        let flags = WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        // The map is held over the call, so that an event cannot come before its entry.
        let mut watched = lock(&self.watched);
        match inotify::add_watch(&*self.inotify, owner, flags) {
            Ok(descriptor) => watched.entry(descriptor).or_default().push(id.to_owned()),
            Err(e) => tracing::debug!(owner = %owner.display(), "cannot be watched: {e}"),
        }
    }

    /// Ends the watch for container `id`.
    pub fn forget(&self, id: &str) {
        lock(&self.watched).retain(|descriptor, ids| {
            ids.retain(|i| i != id);
            if ids.is_empty() {
                // EINVAL if the directory, and the watch with it, is gone already.
                let _ = inotify::remove_watch(&*self.inotify, *descriptor);
            }
            !ids.is_empty()
        });
    }
}

fn run(fd: &OwnedFd, watched: &Mutex<HashMap<i32, Vec<String>>>, removed: impl Fn(&str)) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        let (descriptor, events) = match reader.next() {
            Ok(event) => (event.wd(), event.events()),
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => {
                tracing::error!("owners of volumes are no longer watched, only swept: {e}");
                return;
            }
        };
        if events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
            let ids = lock(watched).get(&descriptor).cloned().unwrap_or_default();
            ids.iter().for_each(|id| removed(id));
        }
        if events.contains(ReadFlags::IGNORED) {
            lock(watched).remove(&descriptor);
        }
    }
}
