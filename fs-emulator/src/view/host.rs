//! What the daemon knows of the host itself.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::time::{ClockId, clock_gettime};

/// How long a text of the host is used again. CPU frequencies may be that old; sizes change only
/// when hardware or swap is added.
const FRESH: Duration = Duration::from_secs(1);

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The host's own files, read through a short-lived cache.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    texts: Mutex<HashMap<&'static str, (Instant, Arc<str>)>>,
    /// The lines of the mount table that are cgroup hierarchies.
    cgroups: Mutex<Arc<str>>,
}

impl Host {
    /// The host whose `/proc` and `/sys` lie below `root` ("/" but in tests).
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), texts: Mutex::default(), cgroups: Mutex::new("".into()) }
    }

    /// The text of a file that changes seldom, at most a second old; empty if it can't be read.
    pub fn text(&self, path: &'static str) -> Arc<str> {
        let texts = || self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, text)) = texts().get(path)
            && read.elapsed() < FRESH
        {
            return text.clone();
        }
        let text: Arc<str> = self.read(path).unwrap_or_default().into();
        texts().insert(path, (Instant::now(), text.clone()));
        text
    }

    /// The text of a file as it is now.
    pub fn read(&self, path: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        read_all(rustix::fs::open(self.root.join(path), flags, Mode::empty()).ok()?)
    }

    /// The text of a file that is one record, however long, as it is now.
    pub fn record(&self, path: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.root.join(path), flags, Mode::empty()).ok()?;
        text_of(ROOM, |buffer, _| rustix::io::read(&file, buffer)).ok()
    }

    /// The lines of `/proc/self/mountinfo` that are cgroup hierarchies, that of `dir` among them.
    ///
    /// The table has some lines for each container of the engine, and the kernel takes its time for
    /// each. So it is read anew only if `dir` is on a mount that was not in it.
    pub fn cgroup_mounts(&self, dir: &Path) -> Arc<str> {
        let mut known = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            mount_of(dir).is_some_and(|id| known.lines().any(|l| l.split(' ').next() == Some(&id)));
        if !is_known {
            let table = self.read("proc/self/mountinfo").unwrap_or_default();
            let cgroups = table.lines().filter(|line| line.contains(" - cgroup"));
            *known = cgroups.flat_map(|line| [line, "\n"]).collect::<String>().into();
        }
        known.clone()
    }

    /// Permission bits of a file.
    pub fn mode(&self, path: &str) -> Option<u16> {
        let metadata = std::fs::metadata(self.root.join(path)).ok()?;
        Some((metadata.permissions().mode() & 0o777) as u16)
    }

    /// The text of a file as it is now, if it is no longer than `longest` bytes.
    pub fn read_short(&self, path: &str, longest: u64) -> Option<String> {
        let mut text = String::new();
        let file = std::fs::File::open(self.root.join(path)).ok()?;
        let length = file.take(longest + 1).read_to_string(&mut text).ok()?;
        (length as u64 <= longest).then_some(text)
    }

    /// The kernel's version, major and minor; 0 where it does not tell.
    pub fn release(&self) -> (u32, u32) {
        let text = self.text("proc/sys/kernel/osrelease");
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Whether the host has the file.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// A field of `/proc/meminfo` in the unit in which it is printed (KiB, or pages of a pool).
    pub fn meminfo(&self, field: &str) -> u64 {
        let text = self.text("proc/meminfo");
        let value = text.lines().find_map(|line| {
            line.strip_prefix(field)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
        });
        value.unwrap_or(0)
    }

    /// Numbers of the CPUs that are online; `[0]` if the host does not tell.
    pub fn online_cpus(&self) -> Vec<u32> {
        let cpus = parse_cpu_list(&self.text("sys/devices/system/cpu/online"));
        if cpus.is_empty() { vec![0] } else { cpus }
    }
}

/// Time since the host's boot, suspended time included (CLOCK_BOOTTIME), nanoseconds.
pub fn boottime() -> u64 {
    nanoseconds(ClockId::Boottime)
}

/// Wall clock time of the host's boot, nanoseconds since 1970; follows when the clock is set.
pub fn boot_wall_time() -> u64 {
    nanoseconds(ClockId::Realtime).saturating_sub(boottime())
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// The whole text of a file of the kernel's. Such files tell no size, so unlike the standard
/// library this does not ask for one.
pub fn read_all(file: OwnedFd) -> Option<String> {
    text_of(0, |buffer, _| rustix::io::read(&file, buffer)).ok()
}

/// The text of a file of one record or of small ones (cgroup files are), from its beginning: the kernel
/// gives as many as there is room for, so after few bytes there are no more, and it need not be asked.
pub fn reread(file: &OwnedFd) -> io::Result<String> {
    text_of(FEW, |buffer, at| rustix::io::pread(file, buffer, at))
}

/// Room for a text at first: as much as the kernel's buffer has.
const ROOM: usize = 4096;
/// A quarter of it.
const FEW: usize = 1024;

/// What `read` gives into a buffer, from a place on, until it gives nothing or the first part is shorter
/// than `few` bytes.
fn text_of(
    few: usize,
    read: impl Fn(rustix::buffer::SpareCapacity<'_, u8>, u64) -> rustix::io::Result<usize>,
) -> io::Result<String> {
    let mut text = Vec::with_capacity(ROOM);
    loop {
        if text.len() == text.capacity() {
            text.reserve(text.len());
        }
        let at = text.len() as u64;
        match read(rustix::buffer::spare_capacity(&mut text), at) {
            Ok(read) if read == 0 || text.len() < few => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    String::from_utf8(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Parses the kernel's list format, e.g. "0-3,8". Malformed parts are left out.
pub fn parse_cpu_list(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
            // More CPUs than any kernel can have would be nonsense.
            && last.saturating_sub(first) < 1 << 16
        {
            cpus.extend(first..=last);
        }
    }
    cpus
}

/// The number in the mount table of the mount that a directory is on.
fn mount_of(dir: &Path) -> Option<String> {
    let found = statx(CWD, dir, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    let told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    told.then(|| found.stx_mnt_id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_cpu_list("7"), [7]);
        assert_eq!(parse_cpu_list("\n"), [0; 0]);
        assert_eq!(parse_cpu_list("0-4294967295,x,3"), [3]);
    }

    #[test]
    fn the_mount_table_is_read_anew_for_a_mount_that_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let table = |text: &str| std::fs::write(root.path().join("proc/self/mountinfo"), text);
        let host = Host::new(root.path());
        let line = format!("{} 1 0:5 / /a rw - cgroup2 x rw\n", mount_of(root.path()).unwrap());
        table(&format!("1 0 0:4 / / rw - ext4 x rw\n{line}")).unwrap();
        assert_eq!(&*host.cgroup_mounts(root.path()), line);
        table("2 0 0:6 / /b rw - cgroup x rw,memory\n").unwrap();
        assert_eq!(&*host.cgroup_mounts(root.path()), line);
        assert!(host.cgroup_mounts(Path::new("/proc")).contains("memory"));
        assert!(host.cgroup_mounts(&root.path().join("gone")).contains("memory"));
    }
}
