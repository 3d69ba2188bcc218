//! The task that waits for an answer: its memory, who it is, and where.
//!
//! Everything is found through its thread id and believed only after
//! [`Caller::still_waits`] has said so (see [`sysbox_kernel::notify`]). While it waits its
//! credentials and namespaces stand still: only it could change them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use sysbox_kernel::notify::{self, Listener, NamespaceId, Taking, read_memory};

use super::decide::{Credentials, Lineage, UserNamespace, capability};
use super::host::{Host, read_file};
use super::status::{Status, host_id, is_mapped};

/// Longest string that the kernel takes for a path or a mount option, with its end mark.
const STRING_MAX: usize = 4096;
/// Memory is read up to ends of pages, so that an unmapped next page is nobody's error.
const PAGE: u64 = 4096;
/// Nesting of user namespaces that the kernel allows, and one more.
const USERNS_DEPTH: usize = 34;

/// A kind of namespace of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Mount namespace.
    Mount,
    /// Network namespace.
    Net,
    /// The pid namespace that the task is in (not the one of its future children).
    Pid,
    /// The user namespace that its capabilities count in.
    User,
}

/// A waiting caller.
#[derive(Debug)]
pub struct Caller<'a> {
    listener: &'a Listener,
    request: &'a Taking,
    id: u64,
    tid: u32,
    /// User namespace of the container that the listener belongs to.
    container: NamespaceId,
    /// Its directory in the host's procfs, which stays this task's when the id is used again.
    dir: OwnedFd,
    /// What it says there about itself.
    pub status: Status,
    credentials: Credentials,
}

impl<'a> Caller<'a> {
    /// Looks at the caller of a request.
    pub fn find(
        host: &Host,
        listener: &'a Listener,
        request: &'a Taking,
        container: NamespaceId,
    ) -> io::Result<Self> {
        let (id, tid) = (request.request().id, request.request().tid);
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&host.proc, tid.to_string(), dir, Mode::empty())?;
        let status = Status::parse(&read_file(&dir, "status")?)?;
        let userns = namespace(&dir, Namespace::User)?;
        let credentials = Credentials {
            userns: notify::id_of(&userns)?,
            euid: status.euid,
            effective: status.effective,
        };
        Ok(Self { listener, request, id, tid, container, dir, status, credentials })
    }

    /// Its thread id in the host's pid namespace.
    pub fn tid(&self) -> u32 {
        self.tid
    }

    /// Whether what was found so far is to be believed: the caller is still in this very call.
    pub fn still_waits(&self) -> bool {
        self.listener.is_valid(self.id)
    }

    /// How far a manager that died in the middle had come with the request; 0: nowhere.
    pub fn noted(&self) -> u64 {
        self.request.noted()
    }

    /// Writes down how far the work is, for the next manager.
    pub fn note(&self, note: u64) {
        self.request.note(note);
    }

    /// Who it is, for decisions.
    pub fn credentials(&self) -> Credentials {
        self.credentials
    }

    /// Whether it may walk directories whatever their permissions say.
    pub fn overrides_search(&self) -> bool {
        let any = capability::DAC_OVERRIDE | capability::DAC_READ_SEARCH;
        self.status.effective & any != 0
    }

    /// One of its namespaces.
    pub fn namespace(&self, kind: Namespace) -> io::Result<OwnedFd> {
        namespace(&self.dir, kind)
    }

    /// Who owns a namespace; `None` if not the container or somebody in it.
    pub fn lineage(&self, namespace: impl AsFd) -> io::Result<Option<Lineage>> {
        lineage(notify::owner(namespace), self.container)
    }

    /// Who made the user namespace that its capabilities count in; `None` as above.
    pub fn own_lineage(&self) -> io::Result<Option<Lineage>> {
        lineage(self.namespace(Namespace::User), self.container)
    }

    /// Its root directory.
    pub fn root(&self) -> io::Result<OwnedFd> {
        self.open_link("root")
    }

    /// Its working directory.
    pub fn working_directory(&self) -> io::Result<OwnedFd> {
        self.open_link("cwd")
    }

    /// The place of what one of its descriptors refers to. Not the open file itself
    /// (`pidfd_getfd(2)`): to close that one can mean to wait for a file system of the container.
    pub fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        self.open_link(&format!("fd/{number}"))
    }

    fn open_link(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(openat(&self.dir, name, flags, Mode::empty())?)
    }

    /// Writes to its memory, if it still waits.
    ///
    /// # Errors
    /// `EFAULT` if not all of it may be written to; `ESRCH` if the caller is gone.
    pub fn write(&self, bytes: &[u8], address: u64) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        // Stays this task's memory when its id is given to another one after the next line.
        let memory = std::fs::File::from(openat(&self.dir, "mem", flags, Mode::empty())?);
        if !self.still_waits() {
            return Err(Errno::SRCH.into());
        }
        memory.write_all_at(bytes, address).map_err(|_| Errno::FAULT.into())
    }

    /// The mounts that it sees.
    pub fn mountinfo(&self) -> io::Result<Vec<u8>> {
        read_file(&self.dir, "mountinfo")
    }

    /// The host's number for a group id as the caller writes it, if it has one.
    pub fn host_gid(&self, gid: u32) -> io::Result<Option<u32>> {
        Ok(host_id(&read_file(&self.dir, "gid_map")?, gid))
    }

    /// Whether files of these owners (host ids) are within reach of the caller's capabilities:
    /// the kernel's `capable_wrt_inode_uidgid()`.
    pub fn has_ids(&self, uid: u32, gid: u32) -> io::Result<bool> {
        Ok(is_mapped(&read_file(&self.dir, "uid_map")?, uid)
            && is_mapped(&read_file(&self.dir, "gid_map")?, gid))
    }

    /// Copies the string at an address. `None`: the address is null.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`: as the kernel would say; see [`read_string`].
    pub fn string(&self, address: u64) -> io::Result<Option<Vec<u8>>> {
        read_string(self.tid, address)
    }
}

/// Copies a string out of a thread's memory, without its end mark. `None`: the address is null.
pub fn read_string(tid: u32, address: u64) -> io::Result<Option<Vec<u8>>> {
    if address == 0 {
        return Ok(None);
    }
    let mut text = Vec::new();
    // Most strings are short: the first piece is small, the others are pages.
    let mut piece = [0; STRING_MAX];
    let mut want = 128;
    while text.len() < STRING_MAX {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let to_page_end = (PAGE - at % PAGE) as usize;
        let length = want.min(to_page_end).min(STRING_MAX - text.len());
        let got = read_memory(tid, at, &mut piece[..length])?;
        let got = &piece[..got];
        if got.is_empty() {
            return Err(Errno::FAULT.into());
        }
        if let Some(end) = got.iter().position(|&byte| byte == 0) {
            text.extend_from_slice(&got[..end]);
            return Ok(Some(text));
        }
        text.extend_from_slice(got);
        want = STRING_MAX;
    }
    Err(Errno::NAMETOOLONG.into())
}

/// Whether a process is in a user namespace or below it. One that is gone already counts as if.
pub fn is_inside(pidfd: &OwnedFd, container: NamespaceId) -> io::Result<bool> {
    match notify::user_namespace_of(pidfd) {
        Ok(userns) => Ok(lineage(Ok(userns), container)?.is_some()),
        // Gone, or a kernel before 6.11: nothing to be learnt.
        Err(_) => Ok(true),
    }
}

fn namespace(dir: &OwnedFd, kind: Namespace) -> io::Result<OwnedFd> {
    let name = match kind {
        Namespace::Mount => "ns/mnt",
        Namespace::Net => "ns/net",
        Namespace::Pid => "ns/pid",
        Namespace::User => "ns/user",
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Walks up from a user namespace to the container's.
fn lineage(from: io::Result<OwnedFd>, container: NamespaceId) -> io::Result<Option<Lineage>> {
    let mut userns = match from {
        // The owner is not below the manager's own namespace, hence not the container.
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => return Ok(None),
        other => other?,
    };
    let mut namespaces = Vec::with_capacity(2);
    for _ in 0..USERNS_DEPTH {
        let id = notify::id_of(&userns)?;
        let owner = notify::owner_uid(&userns)?;
        namespaces.push(UserNamespace { id, owner });
        if id == container {
            break;
        }
        match notify::parent(&userns)? {
            Some(parent) => userns = parent,
            None => break,
        }
    }
    Ok(Lineage::new(namespaces, container))
}
