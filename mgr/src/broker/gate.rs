//! How much of the broker one container may occupy.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Requests of one container that are worked on at the same time. More than one, so that a request
/// which hangs (in a file system that the container serves itself) does not stop the others; few,
/// so that a container which hangs them all holds only that many threads.
pub const AT_ONCE: usize = 4;

/// Counts the requests of one container, over all its listeners.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    busy: usize,
    /// Listeners that may not be read from until a request is done, longest wait first.
    parked: VecDeque<u64>,
}

impl Gate {
    /// A request of `listener` has been taken. `true`: the listener may go on being read;
    /// otherwise it is parked here.
    pub fn enter(&self, listener: u64) -> bool {
        let mut state = self.lock();
        state.busy += 1;
        if state.busy < AT_ONCE {
            return true;
        }
        state.parked.push_back(listener);
        false
    }

    /// A request is done. Returns the listener that may be read from again.
    pub fn leave(&self) -> Option<u64> {
        let mut state = self.lock();
        state.busy = state.busy.saturating_sub(1);
        state.parked.pop_front()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_parks_the_listener_and_a_leaver_frees_the_longest_waiting() {
        let gate = Gate::default();
        for _ in 1..AT_ONCE {
            assert!(gate.enter(1));
        }
        assert!(!gate.enter(1));
        // A second listener of the container that was armed already when the gate filled.
        assert!(!gate.enter(2));
        assert_eq!(gate.leave(), Some(1));
        assert_eq!(gate.leave(), Some(2));
        assert_eq!(gate.leave(), None);
    }
}
