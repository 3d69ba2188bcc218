//! The calls to `sysbox-fs`, at most one at a time for each container.
//!
//! While `sysbox-fs` is down a new container is refused (it would lack its virtualised files), but
//! containers that live already, or go away, must not wait for it: their calls are kept and made
//! when it is back.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use sysbox_ipc::{Error as IpcError, FsClient, proto};

use crate::error::{Doing as _, Result};
use crate::sync::lock;

/// Interval at which a daemon that is down is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A call that could not be made yet.
#[derive(Clone, Debug)]
enum Later {
    Add(proto::AddContainer),
    Remove,
}

#[derive(Debug, Default)]
struct Calls {
    later: BTreeMap<String, Later>,
    /// Containers for which a call is under way.
    busy: HashSet<String>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Mutex<Calls>,
    /// Signalled when `busy` shrinks or `later` grows.
    changed: Condvar,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct FsLink(Arc<Shared>);

/// A connection that is reserved for one container; other calls for it wait until this is dropped.
#[derive(Debug)]
pub struct Reserved {
    client: FsClient,
    turn: Turn,
}

/// The right to make calls for one container.
#[derive(Debug)]
struct Turn {
    shared: Arc<Shared>,
    id: String,
}

impl Turn {
    /// Drops a call that waits: the one that is made now says what is to be.
    fn cancel_later(&self) {
        lock(&self.shared.calls).later.remove(&self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.shared.calls).busy.remove(&self.id);
        self.shared.changed.notify_all();
    }
}

impl FsLink {
    /// Starts the thread that makes the calls that had to wait. `added` is called with the answer to
    /// each [`add_later`](Self::add_later).
    pub fn start(added: impl Fn(&str, proto::Added) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let link = Self(Arc::clone(&shared));
        let worker = link.clone();
        std::thread::Builder::new().name("fs-link".into()).spawn(move || worker.run(&added))?;
        Ok(link)
    }

    /// Connects for a new container: fails, saying how to start it, if `sysbox-fs` is not running.
    pub fn reserve(&self, id: &str) -> Result<Reserved> {
        let turn = self.turn(id);
        let client = FsClient::connect().doing(|| format!("registering container {id}"))?;
        Ok(Reserved { client, turn })
    }

    /// Adds a container that lives already: as soon as `sysbox-fs` runs.
    pub fn add_later(&self, request: proto::AddContainer) {
        lock(&self.0.calls).later.insert(request.id.clone(), Later::Add(request));
        self.0.changed.notify_all();
    }

    /// Makes `sysbox-fs` forget a container as soon as it runs, without waiting for it.
    pub fn remove_later(&self, id: &str) {
        lock(&self.0.calls).later.insert(id.to_owned(), Later::Remove);
        self.0.changed.notify_all();
    }

    /// Makes `sysbox-fs` forget a container, now or when it is back.
    pub fn remove(&self, id: &str) {
        let turn = self.turn(id);
        turn.cancel_later();
        if let Err(e) = FsClient::connect().and_then(|client| client.remove_container(id)) {
            tracing::debug!(container = id, "told to sysbox-fs later: {e}");
            lock(&self.0.calls).later.insert(id.to_owned(), Later::Remove);
        }
        drop(turn);
    }

    /// Waits for calls for this container that are under way.
    fn turn(&self, id: &str) -> Turn {
        let mut calls = self
            .0
            .changed
            .wait_while(lock(&self.0.calls), |calls| calls.busy.contains(id))
            .unwrap_or_else(PoisonError::into_inner);
        calls.busy.insert(id.to_owned());
        Turn { shared: Arc::clone(&self.0), id: id.to_owned() }
    }

    /// One of the calls that wait and can be made.
    fn next(&self) -> (Turn, Later) {
        let mut calls = lock(&self.0.calls);
        loop {
            let ready = calls.later.keys().find(|id| !calls.busy.contains(*id)).cloned();
            if let Some(id) = ready
                && let Some(later) = calls.later.remove(&id)
            {
                calls.busy.insert(id.clone());
                return (Turn { shared: Arc::clone(&self.0), id }, later);
            }
            calls = self.0.changed.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, added: &impl Fn(&str, proto::Added)) {
        loop {
            let (turn, later) = self.next();
            let result = FsClient::connect().and_then(|client| match later.clone() {
                Later::Add(request) => client.add_container(request).map(Some),
                Later::Remove => client.remove_container(&turn.id).map(|()| None),
            });
            match result {
                Ok(answer) => {
                    if let Some(answer) = answer {
                        added(&turn.id, answer);
                    }
                }
                Err(e @ (IpcError::NotRunning { .. } | IpcError::Io { .. })) => {
                    tracing::debug!(container = turn.id, "sysbox-fs is tried again: {e}");
                    lock(&self.0.calls).later.entry(turn.id.clone()).or_insert(later);
                    drop(turn);
                    std::thread::sleep(RETRY);
                }
                Err(e) => tracing::warn!(container = turn.id, "its virtualised files: {e}"),
            }
        }
    }
}

impl Reserved {
    /// Adds the container.
    pub fn add(&self, request: proto::AddContainer) -> Result<proto::Added> {
        let id = request.id.clone();
        self.turn.cancel_later();
        self.client
            .add_container(request)
            .doing(|| format!("getting the virtualised files of container {id}"))
    }
}
