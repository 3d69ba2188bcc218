//! What an image does not hold of a store, written down in it.
//!
//! Engines store images as tar archives, and most write into them neither `user.*` attributes nor
//! ACLs nor holes, and take whiteouts (character devices 0:0) for their own. An inner engine's layers
//! need all of that: in a user namespace a directory that hides those below it is marked by
//! `user.overlay.opaque`, a file that was removed by a whiteout. So whenever an engine may be about to
//! read the store of a container (it has stopped, or is paused for `docker commit`), a file is written
//! into the store that says what the archive will lack; and when a container starts from an image with
//! such a file, it is done again and the file removed.
//!
//! An engine that reads the store through an overlay over it (containerd compares two of those for
//! `docker commit`) would moreover stumble over whiteouts: the overlay takes them for its own, lists their
//! names all the same where it sees no reason to look for any, and then has no such file. So a directory that
//! has some is marked as one that may (`trusted.overlay.origin`, whose empty value says nothing else);
//! inner overlays, in a user namespace, have marks of another name.
//!
//! The file comes from an image, so it is hostile: paths are resolved below the store, without links,
//! and nothing is made but what a container can make itself.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use prost::Message;
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, XattrFlags,
    fallocate, fsetxattr, fstat, makedev, mknodat, openat, openat2, renameat, seek, setxattr,
    unlinkat,
};
use rustix::io::Errno;

use super::copy::{self, meta};

/// Name in the store's directory. No engine has a file of that name.
const FILE: &str = ".sysbox-store-notes";
/// First bytes of the file: what it is, and its format.
const MAGIC: &[u8; 16] = b"sysbox-notes 1\n\0";
/// Marks a directory that may have whiteouts: fs/overlayfs/inode.c, `ovl_path_check_origin_xattr()`.
const MAY_HAVE_WHITEOUTS: &CStr = c"trusted.overlay.origin";
/// Most bytes of one note: an attribute has at most 64 KiB, and all of a file's fit a block or two.
const LONGEST: u32 = 1 << 20;
/// Deepest nesting that is looked at, as in a copy.
const MAX_DEPTH: usize = 400;
/// Holes are noted of files with this much in them, in bytes: below they are not worth it.
const WORTHWHILE: i64 = 1 << 20;

/// What is to be known of one entry.
#[derive(Clone, PartialEq, Message)]
struct Note {
    /// Path below the store.
    #[prost(bytes = "vec", tag = "1")]
    path: Vec<u8>,
    /// It is a whiteout.
    #[prost(bool, tag = "2")]
    whiteout: bool,
    /// Its attributes that an archive leaves out.
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<Attribute>,
    /// Parts without data, as offset and length one after the other.
    #[prost(uint64, repeated, tag = "4")]
    holes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What a container can set itself; the rest is in the archive (file capabilities) or the host's.
fn is_noted(attribute: &CStr) -> bool {
    let name = attribute.to_bytes();
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")
}

/// Writes the notes of the store at `store`. Nothing runs in the container at that time.
pub fn write(store: BorrowedFd<'_>) -> io::Result<()> {
    let new = CString::new(format!("{FILE}.new"))?;
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    unlink(store, &new)?;
    let file = openat(store, &new, flags | OFlags::EXCL, Mode::from_raw_mode(0o600))?;
    let mut out = BufWriter::new(std::fs::File::from(file));
    out.write_all(MAGIC)?;
    let mut any = false;
    walk(store, &mut |note| {
        any = true;
        out.write_all(&note.encode_length_delimited_to_vec())
    })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if any {
        renameat(store, &new, store, FILE)?;
    } else {
        unlink(store, &new)?;
        forget(store)?;
    }
    Ok(())
}

/// Removes the notes of an earlier stop.
pub fn forget(store: BorrowedFd<'_>) -> io::Result<()> {
    unlink(store, &CString::new(FILE)?)
}

fn unlink(store: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match unlinkat(store, name, AtFlags::empty()) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// One directory that is being looked through.
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    names: Vec<CString>,
    /// Whether it says that it may have whiteouts.
    marked: bool,
}

impl Level {
    fn new(directory: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(Self { directory, path, names, marked: false })
    }

    fn mark(&mut self) {
        if !std::mem::replace(&mut self.marked, true)
            && let Err(e) = fsetxattr(&self.directory, MAY_HAVE_WHITEOUTS, b"", XattrFlags::empty())
        {
            tracing::debug!("the engine may not be able to commit a store with whiteouts: {e}");
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn walk(store: BorrowedFd<'_>, noted: &mut dyn FnMut(&Note) -> io::Result<()>) -> io::Result<()> {
    let top = openat(store, ".", DIRECTORY, Mode::empty())?;
    let mut levels = vec![Level::new(top, PathBuf::new())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match openat(&level.directory, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let stat = fstat(&entry)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut note = Note { path: path.as_os_str().as_bytes().to_vec(), ..Note::default() };
        note.whiteout = kind == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0);
        if note.whiteout {
            level.mark();
        }
        if matches!(kind, FileType::Directory | FileType::RegularFile) {
            meta::attributes_of(entry.as_fd(), is_noted, |name, value| {
                let (name, value) = (name.to_bytes().to_vec(), value.to_vec());
                note.attributes.push(Attribute { name, value });
                Ok(())
            })?;
        }
        if kind == FileType::RegularFile {
            note.holes = holes(&entry, &stat);
        }
        if note.whiteout || !note.attributes.is_empty() || !note.holes.is_empty() {
            noted(&note)?;
        }
        if kind == FileType::Directory && levels.len() < MAX_DEPTH {
            let below = openat(&entry, ".", DIRECTORY, Mode::empty())?;
            levels.push(Level::new(below, path)?);
        }
    }
    Ok(())
}

/// The holes of a file that is worth it. What can't be found out is none.
fn holes(entry: &OwnedFd, stat: &Stat) -> Vec<u64> {
    let mut holes = Vec::new();
    let size = stat.st_size as u64;
    if stat.st_size < WORTHWHILE || stat.st_blocks * 512 >= stat.st_size {
        return holes;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = copy::proc_path(entry.as_fd());
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else {
        return holes;
    };
    let mut offset = 0;
    while offset < size && holes.len() < 1000 {
        let Ok(start) = seek(&file, SeekFrom::Hole(offset)) else { break };
        if start >= size {
            break;
        }
        let end = seek(&file, SeekFrom::Data(start)).unwrap_or(size).min(size);
        holes.extend([start, end - start]);
        offset = end;
    }
    holes
}

/// Does what the notes in `store` say and removes them.
pub fn apply(store: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(store, FILE, flags, Mode::empty()) {
        Ok(file) => file,
        // Something that is no file is no notes of ours.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut file = BufReader::new(std::fs::File::from(file));
    let mut magic = [0; MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
        tracing::warn!("an image has a file {FILE} that is none of ours, or of a newer release");
        return Ok(());
    }
    while let Some(note) = next(&mut file)? {
        if let Err(e) = note.apply(store) {
            // The image was changed since, or is a bad one: the rest of it may still be good.
            let path = String::from_utf8_lossy(&note.path).into_owned();
            tracing::debug!(path, "what an image says of a store cannot be done: {e}");
        }
    }
    forget(store)
}

fn next(file: &mut impl Read) -> io::Result<Option<Note>> {
    let mut length = 0_u32;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        match file.read(&mut byte)? {
            0 if shift == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => length |= u32::from(byte[0] & 0x7f).checked_shl(shift).unwrap_or(0),
        }
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if length > LONGEST {
        return Err(io::Error::other(format!("{FILE} of the image is damaged")));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text)?;
    Note::decode(&*text).map(Some).map_err(io::Error::other)
}

impl Note {
    fn apply(&self, store: BorrowedFd<'_>) -> io::Result<()> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |path: &Path, flags: OFlags| {
            let path = if path == Path::new("") { Path::new(".") } else { path };
            openat2(store, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        };
        if self.whiteout {
            let parent = open(path.parent().unwrap_or(Path::new("")), OFlags::PATH)?;
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let made = mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0);
            return match made {
                // On file systems where the archive kept it.
                Err(Errno::EXIST) | Ok(()) => Ok(()),
                Err(e) => Err(e.into()),
            };
        }
        let entry = open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let kind = FileType::from_raw_mode(fstat(&entry)?.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let proc = copy::proc_path(entry.as_fd());
        for attribute in &self.attributes {
            let name = CString::new(attribute.name.as_slice())?;
            if is_noted(&name) {
                setxattr(&proc, &name, &attribute.value, XattrFlags::empty())?;
            }
        }
        if !self.holes.is_empty() && kind == FileType::RegularFile {
            let file = rustix::fs::open(proc, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            for hole in self.holes.chunks_exact(2) {
                fallocate(&file, punch, hole[0], hole[1])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "notes_tests.rs"]
mod tests;
