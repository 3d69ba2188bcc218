//! Sees that `start` need not wait when it moves a container's init to another cgroup.
//!
//! The kernel stops all forks and exits of the machine while a process goes from one cgroup to another
//! (`cgroup_threadgroup_rwsem`), and before the first one who wants that is let in, it waits for a grace
//! period of RCU: 6 to 20 ms, which would be most of the time that `start` takes. Who comes within about 8 ms
//! of the last one does not wait (`kernel/rcu/sync.c`). So the manager is that last one: as long as a
//! container is about to be started it moves itself, again and again, into the cgroup that it is in. That
//! changes nothing, and takes some 20 us each time.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sysbox_cgroups::Layout;

use crate::sync::lock;

/// Time between two moves.
const INTERVAL: Duration = Duration::from_millis(4);

/// How long moves are to be quick once a container is created: longer than an engine takes to `start` one that
/// nothing else delays.
pub const CREATED: Duration = Duration::from_millis(40);

/// How long when the creation begins: one move, whose grace period passes meanwhile. Not all the time until the
/// end of it, which may take long: whoever wants to fork waits for each move, if somebody else is slow at
/// forking just then.
pub const CREATING: Duration = Duration::from_millis(1);

/// Makes moves between cgroups quick for a while.
#[derive(Debug)]
pub struct QuickMoves {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Until when.
    until: Option<Instant>,
    over: bool,
}

impl QuickMoves {
    /// For the hierarchy that containers are moved in, if this host has one.
    pub fn start() -> Self {
        let layout = Layout::detect().ok();
        let unified =
            layout.and_then(|l| l.mounts().iter().find(|m| m.controllers.is_none()).cloned());
        Self::with(unified.map(|mount| mount.root.join(mount.own).join("cgroup.procs")))
    }

    /// `procs`: the file through which this process enters the cgroup that it is in.
    fn with(procs: Option<PathBuf>) -> Self {
        let shared = Arc::new(Shared::default());
        if let Some(procs) = procs {
            let worker = shared.clone();
            let thread = std::thread::Builder::new().name("quick-moves".into());
            // Without it, moves are as slow as they were.
            if let Err(error) = thread.spawn(move || worker.run(&procs)) {
                tracing::warn!(%error, "starting the thread that makes moves between cgroups quick");
            }
        }
        Self { shared }
    }

    /// Moves will be quick from a grace period after now on, until `time` from now.
    pub fn keep_for(&self, time: Duration) {
        let until = Some(Instant::now() + time);
        let mut state = lock(&self.shared.state);
        state.until = state.until.max(until);
        self.shared.changed.notify_one();
    }
}

impl Drop for QuickMoves {
    fn drop(&mut self) {
        lock(&self.shared.state).over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, procs: &Path) {
        while self.is_wanted() {
            if let Err(error) = move_there(procs) {
                // As in a container whose cgroup is not its own: nobody waits for it.
                tracing::debug!(%error, "moves between cgroups are not made quick: {}", procs.display());
                return;
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Waits until it is wanted; `false` when it is over.
    fn is_wanted(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.over {
                return false;
            }
            if state.until.is_some_and(|until| until > Instant::now()) {
                return true;
            }
            state.until = None;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn move_there(procs: &Path) -> std::io::Result<()> {
    // Zero is who writes. Opened each time: the manager may be put into another cgroup.
    OpenOptions::new().write(true).open(procs)?.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn it_moves_while_it_is_wanted_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let procs = dir.path().join("cgroup.procs");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &procs,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let mut written = OpenOptions::new().read(true).write(true).open(&procs).unwrap();
        let moves = QuickMoves::with(Some(procs));
        for _ in 0..2 {
            moves.keep_for(CREATED);
            let mut two = [0; 2];
            written.read_exact(&mut two).unwrap();
            assert_eq!(&two, b"00");
            while lock(&moves.shared.state).until.is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let worker = Arc::downgrade(&moves.shared);
        drop(moves);
        while worker.upgrade().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_cgroup_that_it_is_in_takes_it() {
        let moves = QuickMoves::start();
        moves.keep_for(CREATED);
        while lock(&moves.shared.state).until.is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(Arc::strong_count(&moves.shared) == 2, "the thread gave up");
    }
}
