//! One epoll set over all listeners, and threads that each wait, take a request, serve and answer
//! it.
//!
//! The thread that is woken does the work: a request never changes hands, since a wake-up on
//! another CPU costs ten times what the whole exchange does otherwise. A listener is armed for one
//! event at a time and armed again when its request has been taken, unless the container has used
//! up its share ([`Gate`]). There are always more threads than requests being worked on, so a
//! container that makes all of its share hang stops nobody else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use sysbox_kernel::notify::{Journal, Listener, NamespaceId, Taking};

use super::Container;
use super::deadline::Deadlines;
use super::gate::Gate;
use super::host::Host;
use super::serve::{self, Origin};
use super::worker::Worker;

/// Threads that stay when there is nothing to do.
const IDLE_THREADS: usize = 2;
/// How long another one waits for work before it ends.
const IDLE_TIME: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// A pause after an error of the machine itself, so that it does not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);
/// Names the timer in the epoll set; numbers of listeners count from 1.
const TIMER: u64 = 0;

/// A listener that is being served.
#[derive(Debug)]
struct Source {
    token: u64,
    origin: Arc<Origin>,
    gate: Arc<Gate>,
}

/// Called with the number of a listener when no task is left under its filter.
pub struct Ended(pub Box<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Listeners and threads.
#[derive(Debug)]
pub struct Pool {
    host: Arc<Host>,
    epoll: OwnedFd,
    /// The requests that are being served, for the next manager if this one dies.
    journal: Arc<Journal>,
    /// Hears of listeners that have ended.
    ended: Ended,
    sources: Mutex<HashMap<u64, Arc<Source>>>,
    gates: Mutex<HashMap<String, Weak<Gate>>>,
    deadlines: Deadlines,
    /// Threads that wait for an event.
    idle: AtomicUsize,
    /// Asks for one more thread. Only [`make_threads`] makes them: a new thread shares root and
    /// working directory with the one that made it until it has taken its own.
    wanted: Mutex<Sender<()>>,
}

impl Pool {
    /// Starts the threads.
    pub fn start(host: Host, journal: Arc<Journal>, ended: Ended) -> io::Result<Arc<Self>> {
        let (wanted, requests) = channel();
        let pool = Arc::new(Self {
            host: Arc::new(host),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            journal,
            ended,
            sources: Mutex::default(),
            gates: Mutex::default(),
            deadlines: Deadlines::new()?,
            idle: AtomicUsize::new(0),
            wanted: Mutex::new(wanted),
        });
        let timer = pool.deadlines.timer();
        epoll::add(&pool.epoll, timer, EventData::new_u64(TIMER), armed())?;
        // The first worker is made here, so that a lack of rights is an error of the start.
        let (ready, is_ready) = channel();
        let weak = Arc::downgrade(&pool);
        std::thread::Builder::new()
            .name("broker-threads".into())
            .spawn(move || make_threads(&weak, &requests, &ready))?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("no thread")))?;
        Ok(pool)
    }

    /// Serves one more listener, and first the requests of it that a manager that died had taken.
    pub fn add(
        self: &Arc<Self>,
        token: u64,
        container: Arc<Container>,
        userns: NamespaceId,
        listener: Listener,
        left: Vec<Taking>,
    ) -> io::Result<()> {
        let gate = self.gate(&container.id);
        let source = Arc::new(Source {
            token,
            origin: Arc::new(Origin::new(container, userns, listener)),
            gate,
        });
        lock(&self.sources).insert(token, source.clone());
        for taking in left {
            self.go_on(&source, taking)?;
        }
        let added =
            epoll::add(&self.epoll, &source.origin.listener, EventData::new_u64(token), armed());
        if added.is_err() {
            lock(&self.sources).remove(&token);
        }
        Ok(added?)
    }

    /// Serves, in a thread of its own, a request that a manager that died had taken. Such requests
    /// are few: no more than were being worked on.
    fn go_on(self: &Arc<Self>, source: &Arc<Source>, taking: Taking) -> io::Result<()> {
        if !source.origin.listener.is_valid(taking.request().id) {
            return Ok(());
        }
        let (pool, source) = (self.clone(), source.clone());
        let thread = move || match Worker::new(pool.host.clone()) {
            Ok(mut worker) => pool.serve(&mut worker, &source, &taking),
            Err(error) => tracing::error!(%error, "a trapped system call is left unanswered"),
        };
        std::thread::Builder::new().name("broker-left".into()).spawn(thread).map(drop)
    }

    /// Serves a request within its time.
    fn serve(&self, worker: &mut Worker, source: &Source, taking: &Taking) {
        let deadline = self.deadlines.start(source.origin.clone(), taking.request().id);
        serve::serve(worker, &source.origin, taking);
        self.deadlines.stop(deadline);
    }

    /// The gate of a container; those of containers without listeners are forgotten.
    fn gate(&self, container: &str) -> Arc<Gate> {
        let mut gates = lock(&self.gates);
        if let Some(gate) = gates.get(container).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        gates.insert(container.to_owned(), Arc::downgrade(&gate));
        gate
    }

    fn source(&self, token: u64) -> Option<Arc<Source>> {
        lock(&self.sources).get(&token).cloned()
    }

    fn arm(&self, token: u64, what: impl AsFd) {
        let armed = epoll::modify(&self.epoll, what, EventData::new_u64(token), armed());
        if let Err(error) = armed {
            tracing::error!(token, %error, "a listener can't be watched any more");
        }
    }

    fn arm_source(&self, token: u64) {
        if let Some(source) = self.source(token) {
            self.arm(token, &source.origin.listener);
        }
    }

    /// The life of a worker thread.
    fn work(&self, worker: &mut Worker) {
        let mut events = Vec::with_capacity(1);
        while !worker.is_lost() {
            events.clear();
            let waited = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&IDLE_TIME),
            );
            match waited {
                Ok(0) if self.is_one_too_many() => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "waiting for trapped system calls");
                    std::thread::sleep(PAUSE);
                }
            }
            if let Some(event) = events.pop() {
                self.leave_the_idle();
                self.handle(worker, event.data.u64(), event.flags);
                self.idle.fetch_add(1, Ordering::AcqRel);
            }
        }
        // Lost: another one takes the place.
        self.leave_the_idle();
    }

    fn handle(&self, worker: &mut Worker, token: u64, flags: EventFlags) {
        if token == TIMER {
            self.deadlines.expire();
            self.arm(TIMER, self.deadlines.timer());
            return;
        }
        let Some(source) = self.source(token) else {
            return;
        };
        if flags.contains(EventFlags::IN) {
            self.take(worker, &source);
        } else {
            // No task is left under the filter. Taken out of the epoll set by hand: whoever else
            // holds the listener would keep it there.
            if let Some(source) = lock(&self.sources).remove(&token) {
                let _ = epoll::delete(&self.epoll, &source.origin.listener);
            }
            (self.ended.0)(token);
        }
    }

    /// Takes one request and serves it.
    fn take(&self, worker: &mut Worker, source: &Source) {
        let listener = &source.origin.listener;
        let may_go_on = source.gate.enter(source.token);
        let received = self.journal.receive(listener, source.token);
        if may_go_on {
            self.arm(source.token, listener);
        }
        match received {
            Ok(Some(taking)) => self.serve(worker, source, &taking),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "receiving a trapped system call");
                std::thread::sleep(PAUSE);
            }
        }
        if let Some(parked) = source.gate.leave() {
            self.arm_source(parked);
        }
    }

    /// One thread fewer waits; the last one to go asks for a successor.
    fn leave_the_idle(&self) {
        if self.idle.fetch_sub(1, Ordering::AcqRel) == 1 {
            // The receiver lives as long as the pool.
            let _ = lock(&self.wanted).send(());
        }
    }

    /// Whether the calling thread, which is idle, may end.
    fn is_one_too_many(&self) -> bool {
        let less = |idle: usize| (idle > IDLE_THREADS).then(|| idle - 1);
        self.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

/// Readable, once.
fn armed() -> EventFlags {
    EventFlags::IN | EventFlags::ONESHOT
}

/// Makes worker threads when asked. `ready` hears what became of the first one.
fn make_threads(pool: &Weak<Pool>, requests: &Receiver<()>, ready: &Sender<io::Result<()>>) {
    make_thread(pool, ready.clone());
    while requests.recv().is_ok() {
        let (made, is_made) = channel();
        make_thread(pool, made);
        if let Ok(Err(error)) = is_made.recv() {
            tracing::error!(%error, "making a broker thread");
        }
    }
}

fn make_thread(pool: &Weak<Pool>, made: Sender<io::Result<()>>) {
    let Some(pool) = pool.upgrade() else {
        return;
    };
    let report = made.clone();
    let thread = move || match Worker::new(pool.host.clone()) {
        Ok(mut worker) => {
            pool.idle.fetch_add(1, Ordering::AcqRel);
            let _ = made.send(Ok(()));
            pool.work(&mut worker);
        }
        Err(error) => {
            let _ = made.send(Err(error));
        }
    };
    let spawned = std::thread::Builder::new().name("broker".into()).spawn(thread);
    if let Err(error) = spawned {
        let _ = report.send(Err(error));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
