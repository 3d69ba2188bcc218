//! What happened to containers: the last few hundred events, for those who ask and those who listen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::sync::lock;

/// Events that are kept.
const KEPT: usize = 512;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts from 1.
    pub number: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// What: see the API's `Event`.
    pub kind: Kind,
    /// The container; empty for the manager itself.
    pub id: String,
    /// More to tell.
    pub text: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This manager began to work.
    ManagerStarted,
    /// A container was found running at the start.
    TakenUp,
    /// A runtime registered a container.
    Created,
    /// Its init lives.
    Running,
    /// It runs, and the user should know something about it.
    Warned,
    /// Its init has ended.
    Exited,
    /// The runtime deleted it.
    Deleted,
    /// Its creation failed and was taken back.
    Undone,
    /// The engine removed it, and its volumes went.
    Removed,
    /// `sysbox-fs` serves its files (again).
    FilesBack,
}

impl Kind {
    /// As the API tells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ManagerStarted => "manager-started",
            Self::TakenUp => "taken-up",
            Self::Created => "created",
            Self::Running => "running",
            Self::Warned => "warned",
            Self::Exited => "exited",
            Self::Deleted => "deleted",
            Self::Undone => "undone",
            Self::Removed => "removed",
            Self::FilesBack => "files-back",
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    /// Of the last event.
    number: u64,
    counts: BTreeMap<Kind, u64>,
}

/// The events of this manager.
#[derive(Debug, Default)]
pub struct Events {
    ring: Mutex<Ring>,
    added: Notify,
}

impl Events {
    /// Notes that something happened now.
    pub fn add(&self, kind: Kind, id: &str, text: impl Into<String>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        {
            let mut ring = lock(&self.ring);
            ring.number += 1;
            *ring.counts.entry(kind).or_default() += 1;
            if ring.events.len() == KEPT {
                ring.events.pop_front();
            }
            let number = ring.number;
            let unix_ms = now.as_millis() as u64;
            ring.events.push_back(Event {
                number,
                unix_ms,
                kind,
                id: id.to_owned(),
                text: text.into(),
            });
        }
        self.added.notify_waiters();
    }

    /// Number of the last event.
    pub fn last(&self) -> u64 {
        lock(&self.ring).number
    }

    /// Those after an event, as far back as they are kept.
    pub fn after(&self, number: u64) -> Vec<Event> {
        lock(&self.ring).events.iter().filter(|event| event.number > number).cloned().collect()
    }

    /// Those after an event; waits until there are some.
    pub async fn wait_after(&self, number: u64) -> Vec<Event> {
        loop {
            // Listens before it looks, so that none is missed.
            let added = self.added.notified();
            tokio::pin!(added);
            added.as_mut().enable();
            let events = self.after(number);
            if !events.is_empty() {
                return events;
            }
            added.await;
        }
    }

    /// How often each has happened under this manager.
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        lock(&self.ring).counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_events_make_room_and_numbers_go_on() {
        let events = Events::default();
        for n in 0..KEPT + 3 {
            events.add(Kind::Created, &n.to_string(), "");
        }
        assert_eq!(events.last(), KEPT as u64 + 3);
        assert_eq!(events.after(0).len(), KEPT);
        assert_eq!(events.after(0)[0].id, "3");
        assert_eq!(events.after(events.last() - 1)[0].number, events.last());
        assert_eq!(events.counts()[&Kind::Created], KEPT as u64 + 3);
    }

    #[test]
    fn who_waits_is_woken_by_the_next_event() {
        let events = std::sync::Arc::new(Events::default());
        let adder = events.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            adder.add(Kind::Exited, "a", "");
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let got = runtime.block_on(events.wait_after(0));
        assert_eq!((got[0].kind, got[0].id.as_str()), (Kind::Exited, "a"));
        thread.join().unwrap();
    }
}
