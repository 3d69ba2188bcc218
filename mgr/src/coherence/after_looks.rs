//! Other engines: forget after each look, by notifications of opens on the merged mount.
//!
//! The mark is on the engine's overlay as a file system, not as a mount, so that a look through a
//! copy of the mount (in the mount namespace of a child of the engine) is seen as well. The
//! container's own overlay is another file system and causes no events.
//!
//! File handles instead of open descriptors would be the lighter way to be told, but the kernel gives
//! them for a whole file system only if handles can be decoded, which an overlay cannot do unless
//! mounted with `nfs_export` (EOPNOTSUPP on 6.18). So each event brings a descriptor, closed at once.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::fs::fstat;

use super::{View, mark, next_events};
use crate::sync::lock;

/// A look is over when nothing was opened for this long...
const QUIET: Duration = Duration::from_millis(50);
/// ...and while a long one (an export) goes on, entries are forgotten at this interval.
const LONGEST: Duration = Duration::from_secs(2);

type Views = Mutex<HashMap<u64, Arc<View>>>;

/// The fanotify group and its thread.
#[derive(Debug)]
pub struct AfterLooks {
    group: Arc<Fanotify>,
    /// Device number of the overlay to its view.
    views: Arc<Views>,
}

impl AfterLooks {
    /// Makes the group and starts to listen.
    pub fn start() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS;
        let event_flags = EventFFlags::O_RDONLY
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_NOATIME
            // A FIFO or a device that the engine opened must not hold us up.
            | EventFFlags::O_NONBLOCK;
        let group = Arc::new(Fanotify::init(flags, event_flags)?);
        let views = Arc::new(Views::default());
        let (g, v) = (Arc::clone(&group), Arc::clone(&views));
        std::thread::Builder::new().name("looks-after".into()).spawn(move || run(&g, &v))?;
        Ok(Self { group, views })
    }

    /// From now on looks through the engine's mount are noticed.
    pub fn add(&self, view: &Arc<View>) -> io::Result<()> {
        let device = fstat(view.engine())?.st_dev;
        lock(&self.views).insert(device, Arc::clone(view));
        self.mark(MarkFlags::FAN_MARK_ADD, view).inspect_err(|_| {
            lock(&self.views).remove(&device);
        })
    }

    /// Ends that.
    pub fn remove(&self, view: &View) {
        if let Err(e) = self.mark(MarkFlags::FAN_MARK_REMOVE, view) {
            tracing::debug!("removing the mark of a root file system: {e}");
        }
        if let Ok(stat) = fstat(view.engine()) {
            lock(&self.views).remove(&stat.st_dev);
        }
    }

    fn mark(&self, what: MarkFlags, view: &View) -> io::Result<()> {
        let mask = MaskFlags::FAN_OPEN | MaskFlags::FAN_CLOSE_WRITE | MaskFlags::FAN_ONDIR;
        let what = what | MarkFlags::FAN_MARK_FILESYSTEM;
        mark(&self.group, what, mask, view.engine())
    }
}

/// A look that has begun: forget at the first, or at the latest at the second of these times.
#[derive(Clone, Copy)]
struct Look {
    quiet: Instant,
    latest: Instant,
}

impl Look {
    fn due(&self) -> Instant {
        self.quiet.min(self.latest)
    }
}

fn run(group: &Fanotify, views: &Views) {
    let mut looks: HashMap<u64, Look> = HashMap::new();
    loop {
        let now = Instant::now();
        looks.retain(|device, look| {
            let due = look.due() <= now;
            if due && let Some(view) = lock(views).get(device).cloned() {
                let work = move || view.forget();
                // If no thread can be made now, the next look tries again.
                let _ = std::thread::Builder::new().name("refresh".into()).spawn(work);
            }
            !due
        });
        let due = looks.values().map(Look::due).min();
        let events = next_events(group, due.map(|due| due.saturating_duration_since(now)));
        let now = Instant::now();
        for event in events {
            let device = event.fd().and_then(|fd| fstat(fd.as_fd()).ok()).map(|s| s.st_dev);
            let views = lock(views);
            let seen: Vec<u64> = match device.filter(|d| views.contains_key(d)) {
                Some(device) => vec![device],
                // The queue overflowed, or it is a file that shows the device of its layer (an overlay
                // over several file systems): any of them may have been looked at.
                None => views.keys().copied().collect(),
            };
            drop(views);
            for device in seen {
                let look = Look { quiet: now + QUIET, latest: now + LONGEST };
                looks.entry(device).or_insert(look).quiet = now + QUIET;
            }
        }
    }
}
