//! Pausing and resuming all processes of a container.
//!
//! The v2 freezer is taken wherever the unified hierarchy is there, on hybrid hosts too: a frozen
//! process can be killed, and the state is kept apart from what the container does in its own tree.
//! The v1 freezer is for hosts that have nothing else.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::file;

/// How long processes may take to reach a point where they can be stopped.
const DEADLINE: Duration = Duration::from_secs(10);

/// The two ways to freeze.
enum Freezer<'a> {
    V2(&'a Path),
    V1(&'a Path),
}

impl Cgroup {
    fn freezer(&self) -> Option<Freezer<'_>> {
        let v2 = self.unified().filter(|dir| dir.join("cgroup.freeze").exists());
        let v1 = || self.v1_dir("freezer").map(Freezer::V1);
        v2.map(Freezer::V2).or_else(v1)
    }

    /// Stops every process of the container and waits until all stand still.
    ///
    /// # Errors
    /// [`Error::Timeout`] when one does not stop within ten seconds (it is stuck in the kernel); the
    /// container runs on then. [`Error::NoController`] on a host without a freezer.
    pub fn freeze(&self) -> Result<()> {
        let (dir, result) = match self.freezer() {
            Some(Freezer::V2(dir)) => (dir, freeze_v2(dir)),
            Some(Freezer::V1(dir)) => (dir, freeze_v1(dir)),
            None => return Err(self.no_freezer()),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.thaw()?;
                let path = dir.to_owned();
                Err(Error::Timeout { what: "freezing", path, waited: DEADLINE })
            }
            result => result.context("freeze cgroup", dir),
        }
    }

    /// Lets the processes of the container go on.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NoController`] on a host without a freezer.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer() {
            Some(Freezer::V2(dir)) => {
                file::write(dir, "cgroup.freeze", "0").context("thaw cgroup", dir)
            }
            Some(Freezer::V1(_)) => self.thaw_v1(),
            None => Err(self.no_freezer()),
        }
    }

    /// Is the container paused, or being paused?
    ///
    /// # Errors
    /// [`Error::Io`]. A cgroup that does not exist is not frozen.
    pub fn frozen(&self) -> Result<bool> {
        let (dir, name) = match self.freezer() {
            Some(Freezer::V2(dir)) => (dir, "cgroup.freeze"),
            Some(Freezer::V1(dir)) => (dir, "freezer.state"),
            None => return Ok(false),
        };
        match file::read(dir, name) {
            Ok(text) => Ok(matches!(text.trim(), "1" | "FROZEN" | "FREEZING")),
            Err(error) if file::is_gone(&error) => Ok(false),
            Err(error) => Err(error).context("read the freezer of cgroup", dir),
        }
    }

    /// Releases what a v1 freezer holds (also one that another tool froze).
    pub(crate) fn thaw_v1(&self) -> Result<()> {
        let Some(dir) = self.v1_dir("freezer") else {
            return Ok(());
        };
        match file::write(dir, "freezer.state", "THAWED") {
            Err(error) if !file::is_gone(&error) => Err(error).context("thaw cgroup", dir),
            _ => Ok(()),
        }
    }

    fn no_freezer(&self) -> Error {
        Error::NoController {
            field: "the paused state".to_owned(),
            controller: "freezer".to_owned(),
            path: self.main_dir().to_owned(),
        }
    }
}

fn freeze_v2(dir: &Path) -> io::Result<()> {
    // Opened before the order is given, so that no change of it is missed by poll.
    let events = std::fs::File::open(dir.join("cgroup.events"))?;
    file::write(dir, "cgroup.freeze", "1")?;
    let begun = Instant::now();
    loop {
        let text = file::read(dir, "cgroup.events")?;
        // An empty cgroup has nothing that could become frozen later than now.
        let empty = file::keyed(&text, "populated") == Some(0);
        if empty || file::keyed(&text, "frozen") == Some(1) {
            return Ok(());
        }
        let left = DEADLINE.checked_sub(begun.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
        // Wakes early when the file changes; the upper bound covers a change that came before.
        let wait = left.min(Duration::from_millis(10));
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&wait))?;
    }
}

fn freeze_v1(dir: &Path) -> io::Result<()> {
    let begun = Instant::now();
    let mut round = 0_u32;
    while begun.elapsed() < DEADLINE {
        file::write(dir, "freezer.state", "FROZEN")?;
        for _ in 0..25 {
            match file::read(dir, "freezer.state")?.trim() {
                "FROZEN" => return Ok(()),
                _ => thread::sleep(Duration::from_micros(20 << round.min(8))),
            }
        }
        // A process that forks all the time can keep the v1 freezer at FREEZING for ever: let go
        // and try again.
        file::write(dir, "freezer.state", "THAWED")?;
        round += 1;
        thread::sleep(Duration::from_millis(1));
    }
    Err(io::ErrorKind::TimedOut.into())
}
