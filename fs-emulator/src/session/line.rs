//! Fairness between containers: who asks too much waits in a line of its own.
//!
//! The kernel hands requests over in the order in which they come. A container whose fifty
//! processes read `/proc/stat` for ever fills that queue, and everybody else waits behind them. So
//! the threads that take requests do not serve such a container themselves: its requests go to
//! its own line, and one more thread serves the lines by turns, one request of each. The kernel's
//! queue is then always short, and a container that asks little never waits for one that asks much.
//!
//! A line is never longer than the container has threads: each waits for its answer. Where nobody
//! else wants anything, there is no need to be fair, and all threads serve the one who asks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use rustix::thread::gettid;

/// How much of a CPU's time a container may take for ever without waiting in line, as divisor: half.
/// One process that asks without a pause does not come near.
const SHARE: u32 = 2;
/// Time that a container may take at once before it waits in line.
const BURST: Duration = Duration::from_millis(5);
/// How long a container counts as one that may want something again.
const RECENT: Duration = Duration::from_secs(5);
/// How much less important the lines are than the other requests, as nice(1) counts.
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// The lines of all containers.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a first request comes into line.
    waiting: Condvar,
}

#[derive(Default)]
struct State {
    clients: HashMap<u32, Client>,
    lines: HashMap<u32, VecDeque<Job>>,
    /// Containers with a line, the next one first.
    turns: VecDeque<u32>,
    /// The container that was served last, and since when no other one was.
    only: Option<(u32, Instant)>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("clients", &self.clients).finish_non_exhaustive()
    }
}

/// What a container took.
#[derive(Debug, Clone, Copy)]
struct Client {
    /// Time taken beyond its share.
    debt: Duration,
    at: Instant,
}

impl Lines {
    /// Starts the thread that serves the lines.
    pub fn staff(&self) -> io::Result<()> {
        let shared = self.0.clone();
        std::thread::Builder::new().name("lines".into()).spawn(move || {
            // Without the right to do so, the lines are as important as all else.
            let _ = setpriority_process(Some(gettid()), NICENESS);
            shared.run();
        })?;
        Ok(())
    }

    /// Serves a request of container `key`: now, or when it is its turn.
    pub fn serve(&self, key: u32, job: impl FnOnce() + Send + 'static) {
        let begun = Instant::now();
        let mut state = self.0.lock();
        if state.must_wait(key, begun) {
            state.push(key, Box::new(job));
            drop(state);
            self.0.waiting.notify_one();
        } else {
            drop(state);
            job();
            self.0.lock().took(key, begun.elapsed());
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let waiting = self.waiting.wait_while(self.lock(), |state| state.turns.is_empty());
            let Some((key, job)) = waiting.unwrap_or_else(PoisonError::into_inner).next() else {
                continue;
            };
            let begun = Instant::now();
            job();
            self.lock().took(key, begun.elapsed());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether container `key` took more than its share while others want something, too.
    fn must_wait(&mut self, key: u32, now: Instant) -> bool {
        match self.only {
            Some((only, _)) if only == key => {}
            // Somebody else: from now on there are several, until one is alone for a while.
            _ => self.only = Some((key, now)),
        }
        let alone = self.only.is_some_and(|(_, since)| now.duration_since(since) > RECENT);
        let client = self.clients.entry(key).or_insert(Client { debt: Duration::ZERO, at: now });
        let elapsed = now.saturating_duration_since(client.at);
        client.debt = client.debt.saturating_sub(elapsed / SHARE);
        client.at = now;
        // Nobody overtakes those of the same container that wait already.
        self.lines.contains_key(&key) || (client.debt > BURST && !alone)
    }

    fn took(&mut self, key: u32, time: Duration) {
        if let Some(client) = self.clients.get_mut(&key) {
            // Debts are soon forgotten: a container that calms down is served at once again.
            client.debt = (client.debt + time).min(2 * BURST);
        }
        if self.clients.len() > 4096 {
            let now = Instant::now();
            self.clients.retain(|_, client| now.saturating_duration_since(client.at) < RECENT);
        }
    }

    fn push(&mut self, key: u32, job: Job) {
        let line = self.lines.entry(key).or_default();
        if line.is_empty() {
            self.turns.push_back(key);
        }
        line.push_back(job);
    }

    /// The next request, of the container whose turn it is.
    fn next(&mut self) -> Option<(u32, Job)> {
        let key = self.turns.pop_front()?;
        let line = self.lines.get_mut(&key)?;
        let job = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&key);
        } else {
            self.turns.push_back(key);
        }
        Some((key, job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_takes_much_waits_only_if_others_are_there() {
        let mut state = State::default();
        let start = Instant::now();
        assert!(!state.must_wait(1, start));
        state.took(1, Duration::from_millis(9));
        let later = start + Duration::from_millis(1);
        assert!(state.must_wait(1, later), "nobody knows yet whether it is alone");
        assert!(!state.must_wait(2, later));
        assert!(!state.must_wait(1, start + Duration::from_secs(1)), "its debt is paid");
        state.took(1, Duration::from_millis(9));
        assert!(state.must_wait(1, start + Duration::from_secs(1)));
        // All the time alone.
        let mut now = start + Duration::from_secs(1);
        for _ in 0..100 {
            now += Duration::from_millis(100);
            state.must_wait(1, now);
            state.took(1, Duration::from_millis(100));
        }
        assert!(!state.must_wait(1, now));
        assert!(!state.must_wait(2, now));
        assert!(state.must_wait(1, now), "no longer alone");
    }

    #[test]
    fn lines_are_served_by_turns() {
        let mut state = State::default();
        for key in [1, 1, 1, 2, 3, 3] {
            state.push(key, Box::new(|| ()));
        }
        let order: Vec<_> = std::iter::from_fn(|| state.next().map(|(key, _)| key)).collect();
        assert_eq!(order, [1, 2, 3, 1, 3, 1]);
        assert!(state.lines.is_empty() && state.turns.is_empty());
    }

    #[test]
    fn all_are_served() {
        let lines = Lines::default();
        lines.staff().unwrap();
        let (sender, receiver) = channel();
        for i in 0..100 {
            let sender = sender.clone();
            lines.serve(i % 3, move || {
                std::thread::sleep(Duration::from_millis(1));
                sender.send(i).unwrap();
            });
        }
        let mut served: Vec<u32> = receiver.iter().take(100).collect();
        served.sort_unstable();
        assert!(served.into_iter().eq(0..100));
    }
}
