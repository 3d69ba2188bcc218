//! Shares of the cache and of memory bandwidth: `linux.intelRdt`, by the kernel's resctrl file system.
//!
//! resctrl is like a cgroup hierarchy of two levels. A directory below its root is a *class of service*:
//! `schemata` says what its tasks may use of each L3 cache and memory controller, `tasks` which tasks
//! these are; children of a task are in its class. In `mon_groups` of a class there are directories that
//! only count what some of its tasks use. The hardware has a dozen classes or so.
//!
//! * Without `closID` a container has a class of its own, named by its id. It goes with the container.
//! * With `closID` it joins that class, which others may be in, too. One that does not exist is made if
//!   the specification says what it is to be; one that exists has to be that. It stays, as with runc:
//!   the next container may be on its way. `/` is the class of all tasks that are in no other.
//! * With `enableMonitoring` (or the older `enableCMT`, `enableMBM`) it has a monitoring group, named by
//!   its id, which goes with it.
//!
//! The calls in order: [`Group::plan`] touches nothing; what it gives is to be kept on disk, so that what
//! is made can be taken away whoever dies; [`Group::create`]; [`Group::add`] before the first process
//! runs, and for each that is exec'd; [`Group::remove`], or [`Group::undo`] when the container did not
//! come about.

mod schemata;
mod stats;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use rustix::fs::statfs;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout;
use schemata::Schemata;
pub use stats::{Bandwidth, BandwidthInfo, CacheInfo, Occupancy, RdtStats};

/// Where the kernel makes a directory to mount it on, if it can do any of this.
const USUAL: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`
const MAGIC: i64 = 0x0765_5821;

/// Name of the file in a container's state directory that has its [`Group`], as JSON.
pub const RECORD: &str = "intel-rdt.json";

/// The mounted resctrl file system.
#[derive(Clone, Debug)]
pub struct Resctrl {
    root: PathBuf,
}

impl Resctrl {
    /// The one that is mounted, at its usual place or elsewhere.
    ///
    /// # Errors
    /// None is mounted.
    pub fn find() -> Result<Resctrl> {
        // A tree that looks like it, for tests on machines without such hardware.
        #[cfg(debug_assertions)]
        if let Some(root) = std::env::var_os("SYSBOX_RESCTRL") {
            return Ok(Resctrl::at(root));
        }
        if statfs(USUAL).is_ok_and(|found| found.f_type == MAGIC) {
            return Ok(Resctrl::at(USUAL));
        }
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        layout::mount_point_of("resctrl", &mounts).map(Resctrl::at).ok_or_else(|| {
            let able = Path::new(USUAL).is_dir();
            let cause = if able {
                ""
            } else {
                ". This kernel offers none: the processor has no such controls, or the kernel's \
                 configuration or command line (rdt=) leaves them out"
            };
            let reason = format!(
                "Intel RDT is not available: no resctrl file system is mounted (mount -t resctrl resctrl \
                 {USUAL}){cause}"
            );
            refuse("linux.intelRdt", reason)
        })
    }

    /// One that is mounted on `root`.
    pub fn at(root: impl Into<PathBuf>) -> Resctrl {
        Resctrl { root: root.into() }
    }

    /// Refuses a field that needs a resource (a directory of `info`) that there is not.
    fn needs(&self, given: bool, field: &str, names: &[&str], what: &str) -> Result<()> {
        if !given || names.iter().any(|name| self.root.join("info").join(name).is_dir()) {
            return Ok(());
        }
        let reason = format!(
            "Intel RDT/{what} is not enabled: {}/info has no {} (the processor cannot do it, or the kernel's \
             rdt= switches it off)",
            self.root.display(),
            names[0]
        );
        Err(refuse(field, reason))
    }

    /// Refuses limits that this machine does not have.
    fn needs_limits(&self, l3: bool, memory: bool) -> Result<()> {
        self.needs(l3, "linux.intelRdt.l3CacheSchema", &["L3", "L3CODE"], "CAT")?;
        self.needs(memory, "linux.intelRdt.memBwSchema", &["MB"], "MBA")
    }
}

/// Where a container's tasks are in resctrl. Says only that; it owns nothing and can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The root of the file system.
    root: PathBuf,
    /// The class of service.
    dir: PathBuf,
    /// The class is the container's alone.
    own: bool,
    /// It was not there before.
    made: bool,
    /// The monitoring group, if any.
    monitor: Option<PathBuf>,
}

impl Group {
    /// What container `id` is to have. Nothing is changed yet.
    ///
    /// # Errors
    /// [`Error::Rdt`], with the field: the machine lacks it, the class is missing, or is another than
    /// what is asked for.
    pub fn plan(resctrl: &Resctrl, id: &str, wanted: &LinuxIntelRdt) -> Result<Group> {
        let limits = Schemata::of(wanted);
        resctrl.needs_limits(limits.l3, limits.memory)?;
        #[allow(deprecated)]
        let monitoring = [
            ("linux.intelRdt.enableMonitoring", wanted.enable_monitoring()),
            ("linux.intelRdt.enableCMT", wanted.enable_cmt()),
            ("linux.intelRdt.enableMBM", wanted.enable_mbm()),
        ];
        let mut monitored = false;
        for (field, given) in monitoring {
            let given = *given == Some(true);
            resctrl.needs(given, field, &["L3_MON"], "monitoring")?;
            monitored |= given;
        }
        let class = wanted.clos_id().as_deref().filter(|class| !class.is_empty());
        if class.is_none() && ["info", "mon_groups", "mon_data"].contains(&id) {
            let reason = format!("{id:?} cannot name a class (give one with closID)");
            return Err(refuse("linux.intelRdt", reason));
        }
        let dir = match class {
            Some("/") => resctrl.root.clone(),
            Some(class) => resctrl.root.join(class),
            None => resctrl.root.join(id),
        };
        let group = Group {
            root: resctrl.root.clone(),
            made: !dir.is_dir(),
            own: class.is_none(),
            monitor: monitored.then(|| dir.join("mon_groups").join(id)),
            dir,
        };
        if group.own {
            return Ok(group);
        }
        match (group.made, limits.is_empty()) {
            (true, true) => {
                let reason = format!(
                    "clos dir not accessible (must be pre-created when l3CacheSchema, memBwSchema and \
                     schemata are empty): {} does not exist",
                    group.dir.display()
                );
                Err(refuse("linux.intelRdt.closID", reason))
            }
            (false, false) => group.check(&limits).map(|()| group),
            _ => Ok(group),
        }
    }

    /// Does the class have the limits that are asked for?
    fn check(&self, limits: &Schemata) -> Result<()> {
        let file = self.dir.join("schemata");
        let now = fs::read_to_string(&file).map_err(|error| {
            refuse("linux.intelRdt.closID", format!("read {}: {error}", file.display()))
        })?;
        // What is asked for is rounded up to that by the kernel.
        let step = fs::read_to_string(self.root.join("info/MB/bandwidth_gran"));
        let step = step.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1);
        match limits.first_difference(&now, step) {
            None => Ok(()),
            Some(line) => {
                let reason = format!(
                    "the class exists with another schemata than {line:?}: {} has {:?} (leave the schemata \
                     out to join it as it is, or name another class)",
                    file.display(),
                    now.trim()
                );
                Err(refuse("linux.intelRdt.closID", reason))
            }
        }
    }

    /// Makes what is missing, and sets the limits of a class that is new or the container's own.
    ///
    /// # Errors
    /// [`Error::Rdt`], with what the kernel says. What was made is gone again.
    pub fn create(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        let done = self.create_class(wanted).and_then(|()| match &self.monitor {
            Some(monitor) => self.mkdir(monitor, "linux.intelRdt.enableMonitoring"),
            None => Ok(()),
        });
        if done.is_err() {
            self.undo();
        }
        done
    }

    fn create_class(&self, wanted: &LinuxIntelRdt) -> Result<()> {
        if self.made {
            self.mkdir(&self.dir, "linux.intelRdt")?;
        }
        if self.made || self.own {
            let limits = Schemata::of(wanted);
            self.set(&limits.first)?;
            self.set(&limits.last)?;
        }
        Ok(())
    }

    fn mkdir(&self, dir: &Path, field: &str) -> Result<()> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOSPC) => {
                let hint = ": the hardware has no more of them; share a class by closID";
                Err(self.failed(field, &format!("make {}", dir.display()), &error, hint))
            }
            Err(error) => Err(self.failed(field, &format!("make {}", dir.display()), &error, "")),
            Ok(()) => Ok(()),
        }
    }

    /// Writes lines of schemata in one go: the kernel takes all of them, or none.
    fn set(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let file = self.dir.join("schemata");
        fs::write(&file, lines.join("\n") + "\n").map_err(|error| {
            let action = format!("write {:?} to {}", lines.join("\n"), file.display());
            self.failed("linux.intelRdt", &action, &error, "")
        })
    }

    /// Sets other limits, as `update` asks for them; empty ones stay as they are.
    ///
    /// # Errors
    /// [`Error::Rdt`]
    pub fn update(&self, l3: &str, memory: &str) -> Result<()> {
        let resctrl = Resctrl::at(&self.root);
        resctrl.needs_limits(!l3.is_empty(), !memory.is_empty())?;
        let mut wanted = LinuxIntelRdt::default();
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        wanted.set_l3_cache_schema(given(l3)).set_mem_bw_schema(given(memory));
        self.set(&Schemata::of(&wanted).first)
    }

    /// Puts a process with one thread into the group.
    ///
    /// # Errors
    /// [`Error::Rdt`]
    pub fn add(&self, pid: i32) -> Result<()> {
        // The class first: a monitoring group takes only those who are in it.
        for dir in std::iter::once(&self.dir).chain(&self.monitor) {
            let file = dir.join("tasks");
            fs::write(&file, pid.to_string()).map_err(|error| {
                let action = format!("add process {pid} to {}", file.display());
                self.failed("linux.intelRdt", &action, &error, "")
            })?;
        }
        Ok(())
    }

    /// Puts all threads of running processes into the group. Those that end meanwhile are passed over.
    ///
    /// # Errors
    /// [`Error::Rdt`]
    pub fn add_all(&self, pids: &[i32]) -> Result<()> {
        for pid in pids {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            for thread in threads {
                let lives = || Path::new(&format!("/proc/{pid}/task/{thread}")).exists();
                match self.add(thread) {
                    Err(error) if lives() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Is the class still there? (Its administrator may have removed it.)
    pub fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Removes what was made for this container. What is not there is removed.
    ///
    /// # Errors
    /// [`Error::Rdt`]
    pub fn remove(&self) -> Result<()> {
        let monitor = self.monitor.as_ref().map_or(Ok(()), |monitor| self.rmdir(monitor));
        // Removing a class removes its monitoring groups.
        let class = if self.own && self.made { self.rmdir(&self.dir) } else { Ok(()) };
        monitor.and(class)
    }

    /// As [`Group::remove`], for a container that did not come about: a class that was made for it goes as
    /// well, unless somebody has joined it meanwhile. What cannot be removed stays.
    pub fn undo(&self) {
        let _ = self.remove();
        let unused =
            || fs::read_to_string(self.dir.join("tasks")).is_ok_and(|t| t.trim().is_empty());
        if self.made && !self.own && unused() {
            let _ = self.rmdir(&self.dir);
        }
    }

    fn rmdir(&self, dir: &Path) -> Result<()> {
        let removed = match fs::remove_dir(dir) {
            // The kernel removes a group with its files; in a tree that only looks like resctrl they
            // are in the way.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                fs::remove_dir_all(dir)
            }
            other => other,
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("linux.intelRdt", &format!("remove {}", dir.display()), &error, ""))
            }
            _ => Ok(()),
        }
    }

    /// An error with what the kernel tells about its refusal, beyond the error number.
    fn failed(&self, field: &str, action: &str, error: &io::Error, hint: &str) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
        let status = match status.trim() {
            "" | "ok" => String::new(),
            status => format!(", last_cmd_status: {status}"),
        };
        refuse(field, format!("{action}: {error}{hint}{status}"))
    }
}

fn refuse(field: &str, reason: String) -> Error {
    Error::Rdt { field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests;
