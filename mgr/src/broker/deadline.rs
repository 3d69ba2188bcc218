//! No caller waits for ever: a request that is not done in time is answered with `ETIMEDOUT`.
//!
//! What can take so long is a path that leads over a file system which the container serves
//! itself and does not answer. The thread in it can't be called back; it goes on counting against
//! its container's share, and when it gets through it finds that nobody waits any more and undoes
//! what it did.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use sysbox_kernel::notify::Answer;

use super::serve::Origin;

/// How long a request may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The requests that are being worked on.
#[derive(Debug)]
pub struct Deadlines {
    timer: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By number, hence by age.
    running: BTreeMap<u64, Running>,
    /// The timer runs. It is not stopped when there is nothing left, so that short requests don't
    /// set it each time.
    set: bool,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    origin: Arc<Origin>,
    request: u64,
    answered: bool,
}

impl Deadlines {
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            state: Mutex::default(),
        })
    }

    /// Readable when [`Deadlines::expire`] is to be called.
    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Work on a request begins.
    pub fn start(&self, origin: Arc<Origin>, request: u64) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let running = Running { since: Instant::now(), origin, request, answered: false };
        state.running.insert(number, running);
        if !state.set {
            state.set = true;
            self.set(LIMIT);
        }
        number
    }

    /// Work on a request is done.
    pub fn stop(&self, number: u64) {
        self.lock().running.remove(&number);
    }

    /// Answers what is overdue and sets the timer for the rest.
    pub fn expire(&self) {
        let mut count = [0; 8];
        // Makes the timer unreadable; how often it ran out does not matter.
        let _ = rustix::io::read(&self.timer, &mut count);
        let now = Instant::now();
        let mut overdue = Vec::new();
        let mut state = self.lock();
        let mut next = None;
        for running in state.running.values_mut().filter(|running| !running.answered) {
            let left = LIMIT.saturating_sub(now.duration_since(running.since));
            if left.is_zero() {
                running.answered = true;
                overdue.push((running.origin.clone(), running.request));
            } else if next.is_none() {
                next = Some(left);
            }
        }
        state.set = next.is_some();
        if let Some(left) = next {
            self.set(left);
        }
        drop(state);
        for (origin, request) in overdue {
            let answer = Answer::Error(Errno::TIMEDOUT.raw_os_error());
            let container = &origin.container.id;
            if origin.may_complain() {
                tracing::warn!(container, "a trapped system call took more than {LIMIT:?}");
            }
            if let Err(error) = origin.listener.answer(request, answer) {
                tracing::warn!(container, %error, "answering it");
            }
        }
    }

    fn set(&self, after: Duration) {
        let value = Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(%error, "setting the deadline of trapped system calls");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
