//! The numbers of a container as one reader sees them, at one moment.
//!
//! The reader's identity is its cgroup: of all levels from the container's own cgroup down to the
//! reader's, the tightest limit counts. Readers elsewhere (the host's administrator) see the
//! container's own numbers. Nothing here can fail for the reader: what a file does not tell falls
//! back to the host's size and no use.

pub mod cgroup;
pub mod cpu;
pub mod host;
pub mod io;
pub mod kept;
pub mod load;
pub mod memory;
pub mod walk;

use std::cell::OnceCell;
use std::rc::Rc;

use crate::container::Container;
use cgroup::{Hierarchy, Level};
use host::Host;

/// A container seen by one reader at one moment.
#[derive(Debug)]
pub struct View<'a> {
    /// The host.
    pub host: &'a Host,
    /// The container whose file is read.
    pub container: &'a Container,
    /// CLOCK_BOOTTIME at this moment, nanoseconds.
    pub now: u64,
    /// Thread id of the reader in the host's pid namespace; 0 if unknown.
    reader: u32,
    /// Text of the reader's `/proc/PID/cgroup`, read when first needed.
    reader_cgroups: OnceCell<String>,
    /// The reader's levels in each of the container's hierarchies, likewise.
    found: Vec<OnceCell<Rc<[Level]>>>,
}

/// The levels of a reader in the hierarchy of one controller; the container's own first.
#[derive(Debug)]
pub struct Levels {
    /// Whether the hierarchy is cgroup v2.
    pub v2: bool,
    /// Empty if the container's cgroup can't be reached.
    pub list: Rc<[Level]>,
}

impl<'a> View<'a> {
    /// What thread `reader` (0: nobody in particular) sees of the container now.
    pub fn new(host: &'a Host, container: &'a Container, reader: u32) -> Self {
        let now = host::boottime();
        let found = container.hierarchies.iter().map(|_| OnceCell::new()).collect();
        Self { host, container, now, reader, reader_cgroups: OnceCell::new(), found }
    }

    /// Time that the container has lived, nanoseconds.
    pub fn uptime(&self) -> u64 {
        self.now.saturating_sub(self.container.record.created_boottime_ns)
    }

    /// The levels where `controller` is: its v1 hierarchy if the host has one, else cgroup v2.
    pub fn levels(&self, controller: &str) -> Levels {
        let hierarchies = &self.container.hierarchies;
        let v1 = hierarchies.iter().position(|h| !h.is_v2() && h.has(controller));
        match v1 {
            Some(hierarchy) => Levels { v2: false, list: self.levels_in(hierarchy) },
            None => Levels { v2: true, list: self.unified() },
        }
    }

    /// The levels in the cgroup v2 hierarchy.
    pub fn unified(&self) -> Rc<[Level]> {
        let unified = self.container.hierarchies.iter().position(Hierarchy::is_v2);
        unified.map(|hierarchy| self.levels_in(hierarchy)).unwrap_or_default()
    }

    fn levels_in(&self, hierarchy: usize) -> Rc<[Level]> {
        let find = || self.container.hierarchies[hierarchy].levels_again(self.cgroups()).into();
        self.found[hierarchy].get_or_init(find).clone()
    }

    /// Thread ids of the reader, from the host's pid namespace (where the daemon is) down to its
    /// own; the second one is the container's. Empty if there is no reader.
    pub fn reader_tids(&self) -> Vec<u32> {
        if self.reader == 0 {
            return Vec::new();
        }
        let status = self.host.record(&format!("proc/{}/status", self.reader)).unwrap_or_default();
        let tids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or("");
        tids.split_whitespace().filter_map(|tid| tid.parse().ok()).collect()
    }

    fn cgroups(&self) -> &str {
        self.reader_cgroups.get_or_init(|| match self.reader {
            0 => String::new(),
            tid => self.host.record(&format!("proc/{tid}/cgroup")).unwrap_or_default(),
        })
    }
}
