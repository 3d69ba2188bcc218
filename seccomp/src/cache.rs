//! Compiled programs on disk, so that starting a container doesn't compile the profile that the
//! engine has sent a thousand times before.
//!
//! A file holds everything that the program depends on (the *key*) next to the program, and is
//! used only if the key is equal byte for byte: the hash in its name merely finds it, so nobody
//! gains anything from a profile that is made to collide with another.
//!
//! Who can write the directory decides what containers may do: it must belong to the user that
//! runs us and be writable by nobody else, and so must each file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

use crate::compile::flags;
use crate::{Program, Request, Warning};

const MAGIC: &[u8; 8] = b"sbxscmp1";
/// Magic, then the lengths of key, warnings and program.
const HEADER: usize = MAGIC.len() + 3 * 4;
/// A profile of this size (bytes) is not worth keeping, and no file may be larger.
const MAX_FILE: u64 = 1 << 20;
/// Engines have a handful of profiles; more files than this are somebody's generated ones.
const MAX_FILES: usize = 64;

/// A directory of compiled programs.
#[derive(Debug)]
pub struct Cache {
    dir: OwnedFd,
}

impl Cache {
    /// Opens the directory, making it (mode 0700) if it is not there.
    ///
    /// # Errors
    ///
    /// It can't be made or opened, or somebody else could write it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).recursive(true).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = File::from(rustix::fs::open(dir, flags, Mode::empty())?);
        require_ours(&dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// The program for `request` and the warnings of its compilation, if they are here and whole.
    pub fn load(&self, request: &Request<'_>) -> Option<(Program, Vec<Warning>)> {
        let key = key(request)?;
        let flags_ = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = File::from(openat(&self.dir, name(&key), flags_, Mode::empty()).ok()?);
        require_ours(&file).ok()?;
        let mut bytes = Vec::new();
        (&mut file).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        let (stored_key, warnings, program) = split(&bytes)?;
        if stored_key != key {
            return None;
        }
        let warnings = str::from_utf8(warnings).ok()?.lines().map(Warning::new).collect();
        let program = Program::from_bytes(program).ok()?.with_flags(flags(request.profile));
        Some((program, warnings))
    }

    /// Keeps `program` for later requests like `request`.
    ///
    /// # Errors
    ///
    /// The file can't be written. What was there before is left as it was.
    pub fn store(
        &self,
        request: &Request<'_>,
        program: &Program,
        warnings: &[Warning],
    ) -> io::Result<()> {
        let Some(key) = key(request) else {
            return Ok(());
        };
        let warnings: Vec<&str> = warnings.iter().map(Warning::as_str).collect();
        let bytes = join(&key, warnings.join("\n").as_bytes(), program.as_bytes());
        if bytes.len() as u64 >= MAX_FILE {
            return Ok(());
        }
        self.make_room()?;
        let name = name(&key);
        let temporary = format!("{name}.{}", std::process::id());
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&self.dir, &temporary, flags | OFlags::NOFOLLOW, mode)?);
        // Not synced to disk: a file that a crash cut short doesn't match its lengths.
        let written = file.write_all(&bytes);
        let done = written.and_then(|()| Ok(renameat(&self.dir, &temporary, &self.dir, &name)?));
        if done.is_err() {
            // The first error is the one to tell; a left-over is removed by `make_room`.
            let _ = unlinkat(&self.dir, &temporary, AtFlags::empty());
        }
        done
    }

    /// Removes the oldest files when there are too many.
    fn make_room(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, std::ffi::CString)> = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // Gone in the meantime: another runtime makes room, too.
            let Ok(stat) = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let age = Duration::new(stat.st_mtime.max(0) as u64, stat.st_mtime_nsec as u32);
            files.push((SystemTime::UNIX_EPOCH + age, name.to_owned()));
        }
        files.sort();
        for (_, name) in files.iter().take((files.len() + 1).saturating_sub(MAX_FILES)) {
            let _ = unlinkat(&self.dir, name, AtFlags::empty());
        }
        Ok(())
    }
}

fn require_ours(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if ours && metadata.mode() & 0o022 == 0 && (metadata.is_file() || metadata.is_dir()) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "must belong to the user that runs the containers and be writable by nobody else",
    ))
}

/// Everything that a compiled program depends on.
fn key(request: &Request<'_>) -> Option<Vec<u8>> {
    let libseccomp = libseccomp::ScmpVersion::current().ok()?;
    let mut key = format!(
        "{} {} libseccomp {libseccomp:?} traps {} system {}\n",
        env!("SECCOMP_SOURCES"),
        std::env::consts::ARCH,
        request.traps,
        request.system_container,
    )
    .into_bytes();
    serde_json::to_writer(&mut key, &request.profile).ok()?;
    Some(key)
}

/// 64-bit FNV-1a: a name that is the same for every build.
fn name(key: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}.bpf", key.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn join(key: &[u8], warnings: &[u8], program: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for part in [key, warnings, program] {
        bytes.extend((part.len() as u32).to_le_bytes());
    }
    for part in [key, warnings, program] {
        bytes.extend(part);
    }
    bytes
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (magic, lengths) = header.split_at(MAGIC.len());
    let (lengths, _) = lengths.as_chunks::<4>();
    let lengths: Vec<usize> = lengths.iter().map(|l| u32::from_le_bytes(*l) as usize).collect();
    let (key, rest) = rest.split_at_checked(lengths[0])?;
    let (warnings, program) = rest.split_at_checked(lengths[1])?;
    (magic == MAGIC && program.len() == lengths[2]).then_some((key, warnings, program))
}
