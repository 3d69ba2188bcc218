//! What attacks on mounts are after, and how one sees that it was reached.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A place, as it was before anything was tried on it.
#[derive(Clone, Debug)]
pub struct Goal {
    pub path: String,
    pub wanted: Wanted,
    pub is_directory: bool,
    file_system: Option<FileSystem>,
}

/// Which one it is, as its device number and its id: the number alone may come again with the next tmpfs
/// after the first one is gone.
type FileSystem = (u64, u64);

#[derive(Clone, Debug)]
pub enum Wanted {
    /// To write to this directory.
    Write,
    /// To read what the file was before something else was mounted on it, which has this in it.
    See { hidden: String },
}

impl Goal {
    /// `ro:PATH` or `mask:PATH:TEXT`.
    pub fn parse(argument: &str) -> Option<Self> {
        let mut parts = argument.splitn(3, ':');
        let (path, wanted) = match (parts.next()?, parts.next()?, parts.next()) {
            ("ro", path, None) => (path, Wanted::Write),
            ("mask", path, Some(hidden)) => (path, Wanted::See { hidden: hidden.into() }),
            _ => return None,
        };
        let found = File::open(path).expect("what is attacked exists");
        let is_directory = found.metadata().is_ok_and(|found| found.is_dir());
        Some(Self { path: path.into(), wanted, is_directory, file_system: file_system(&found) })
    }

    /// Whether the goal is reached at this place.
    pub fn is_reached_at(&self, place: &Path) -> bool {
        match &self.wanted {
            Wanted::Write => self.is_writable(place),
            Wanted::See { hidden } => {
                fs::read_to_string(place).is_ok_and(|text| text.contains(hidden.as_str()))
            }
        }
    }

    /// Whether a new file there lands on the file system that is to be protected (and not on something
    /// that the attacker has mounted in its place, which is no breach).
    fn is_writable(&self, place: &Path) -> bool {
        let name = place.join(format!("attack-{}", std::process::id()));
        let made = OpenOptions::new().write(true).create(true).truncate(true).open(&name);
        let written = made.is_ok_and(|mut file| {
            file_system(&file) == self.file_system && file.write_all(b"x").is_ok()
        });
        let _ = fs::remove_file(name);
        written
    }
}

fn file_system(file: &File) -> Option<FileSystem> {
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open, and the call writes no more than the structure.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: written, as the call succeeded.
    let found = unsafe { found.assume_init() };
    Some((file.metadata().ok()?.dev(), found.f_fsid))
}
