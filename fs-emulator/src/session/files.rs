//! Answers the kernel's requests for the emulated files.
//!
//! Nothing here may block on a container: a request is answered from the daemon's memory, from
//! cgroup files and from the host's own /proc, and by whichever thread took it.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyWrite,
    Request, WriteFlags,
};

use super::inode::{Node, ROOT, Tree};
use super::texts::Texts;
use crate::container::Container;
use crate::containers::{Containers, WriteError};
use crate::settings::{self, Refusal, Setting};
use crate::table::{Row, Source};
use crate::view::View;
use crate::view::host::{Host, boottime};

/// How long the kernel may keep names and attributes: they never change, and a container's number
/// is never used again.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// What is used of a FUSE connection where the kernel offers it.
/// Longest mount table that is read to see whether a setting may be written; in a longer one it may
/// not.
const LONGEST_MOUNT_TABLE: u64 = 8 << 20;
/// Longest write that is taken at once; a setting is one line.
const LONGEST_WRITE: u32 = 4096;
const WANTED: InitFlags = InitFlags::FUSE_PARALLEL_DIROPS.union(InitFlags::FUSE_HAS_RESEND);

/// The emulated files of all containers.
#[derive(Debug)]
pub struct Files {
    host: Arc<Host>,
    containers: Arc<Containers>,
    tree: Arc<Tree>,
    texts: Texts,
    agreed: Arc<OnceLock<u64>>,
}

impl Files {
    /// The files of these containers. When the connection with the kernel is up, `agreed` holds the
    /// flags that both sides agreed on.
    pub fn new(
        host: Arc<Host>,
        containers: Arc<Containers>,
        tree: Arc<Tree>,
        agreed: Arc<OnceLock<u64>>,
    ) -> Self {
        // The clock since boot goes by far faster than files are opened, so handles are new.
        Self { host, containers, tree, texts: Texts::new(boottime()), agreed }
    }

    /// The node of an inode number, if its container is served.
    fn node(&self, ino: INodeNo) -> Option<Node<'_>> {
        let node = self.tree.node(ino.0)?;
        match node {
            Node::Root => {}
            Node::Directory { key, .. } | Node::File { key, .. } => {
                self.containers.get(key)?;
            }
        }
        Some(node)
    }

    /// The name `name` in the directory `parent`.
    fn child(&self, parent: INodeNo, name: &str) -> Option<Node<'_>> {
        match self.node(parent)? {
            Node::Root => {
                let key: u32 = name.parse().ok()?;
                // One spelling only: "7", not "07" or "+7".
                self.containers.get(key).filter(|_| key.to_string() == name)?;
                Some(self.tree.container(key))
            }
            Node::Directory { key, directory } => self.tree.child(key, directory, name),
            Node::File { .. } => None,
        }
    }

    /// The names in the directory `ino`.
    fn children(&self, ino: INodeNo) -> Option<Vec<(String, Node<'_>)>> {
        match self.node(ino)? {
            Node::Root => {
                let keys = self.containers.all().into_iter().map(|c| c.record.key);
                Some(keys.map(|key| (key.to_string(), self.tree.container(key))).collect())
            }
            Node::Directory { key, directory } => {
                let entries = self.tree.children(key, directory).into_iter();
                Some(entries.map(|(name, node)| (name.to_owned(), node)).collect())
            }
            Node::File { .. } => None,
        }
    }

    fn attributes(&self, node: &Node) -> Option<FileAttr> {
        let (kind, perm, size, time, uid, gid) = match node {
            Node::Root => (FileType::Directory, 0o555, 0, UNIX_EPOCH, 0, 0),
            Node::Directory { key, .. } => {
                let time = self.containers.get(*key)?.created;
                (FileType::Directory, 0o555, 0, time, 0, 0)
            }
            Node::File { key, row } => {
                let container = self.containers.get(*key)?;
                let (uid, gid) = (container.record.uid, container.record.gid);
                let (mode, size) = (self.tree.mode(row), self.tree.size(row));
                (FileType::RegularFile, mode, size, container.created, uid, gid)
            }
        };
        let ino = INodeNo(node.ino());
        let nlink = if kind == FileType::Directory { 2 } else { 1 };
        let [atime, mtime, ctime, crtime] = [time; 4];
        // "Blocks" no smaller than the file, or `wc -c` believes all but the last one to be there.
        let blksize = size.next_power_of_two().max(4096) as u32;
        let (blocks, rdev, flags) = (0, 0, 0);
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        })
    }

    /// The text of a file for thread `reader`, and the container's key.
    fn text(&self, ino: INodeNo, reader: u32) -> Result<(u32, String), Errno> {
        match self.tree.node(ino.0) {
            Some(Node::File { key, row }) => {
                let container = self.containers.get(key).ok_or(Errno::ENOENT)?;
                Ok((key, row.text(&View::new(&self.host, &container, reader))))
            }
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// The setting of an inode number.
    fn setting(&self, ino: INodeNo) -> Result<(Arc<Container>, &'static Row, &Setting), Errno> {
        match self.tree.node(ino.0) {
            Some(Node::File { key, row }) => match &row.source {
                Source::Setting(setting) => {
                    let container = self.containers.get(key).ok_or(Errno::ENOENT)?;
                    Ok((container, row, setting))
                }
                Source::View(_) => Err(Errno::EACCES),
            },
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// Whether a file may be opened in this way by thread `opener`. The kernel has checked
    /// permission bits, but for who is privileged over them; those it checks for settings, too.
    fn may_open(&self, ino: INodeNo, mode: OpenAccMode, opener: u32) -> Result<(), Errno> {
        let reads = mode != OpenAccMode::O_WRONLY;
        let writes = mode != OpenAccMode::O_RDONLY;
        if let Ok((_, row, _)) = self.setting(ino)
            && reads
            && self.tree.mode(row) & 0o444 == 0
        {
            return Err(Errno::EACCES);
        }
        if !writes {
            return Ok(());
        }
        let (container, row, _) = self.setting(ino)?;
        if self.tree.mode(row) & 0o222 == 0 {
            return Err(Errno::EACCES);
        }
        let table = format!("proc/{opener}/mountinfo");
        let table = self.host.read_short(&table, LONGEST_MOUNT_TABLE).ok_or(Errno::EROFS)?;
        let root = format!("/{}/{}", container.record.key, row.path);
        settings::is_writable(&table, &root).then_some(()).ok_or(Errno::EROFS)
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let usable = WANTED & config.capabilities();
        // Asked for one by one what the kernel offered: this can't be refused.
        let _ = config.add_capabilities(usable);
        let _ = config.set_max_write(LONGEST_WRITE);
        let _ = self.agreed.set((config.capabilities() & WANTED).bits());
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let node = name.to_str().and_then(|name| self.child(parent, name));
        match node.and_then(|node| self.attributes(&node)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(ino).and_then(|node| self.attributes(&node)) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Opening a setting with O_TRUNC does nothing to it, as with the kernel's.
        let refused = mode.is_some() || uid.is_some() || gid.is_some();
        let node = self.node(ino).filter(|_| !refused && self.setting(ino).is_ok());
        match node.and_then(|node| self.attributes(&node)) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::EPERM),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = flags.acc_mode();
        if let Err(errno) = self.may_open(ino, mode, request.pid()) {
            return reply.error(errno);
        }
        match self.text(ino, request.pid()) {
            Ok((key, text)) => {
                let handle = FileHandle(self.texts.open(key, text));
                reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Reading past the page cache names an owner. Who does not, fills the page cache, for
        // sendfile(2), splice(2) or mmap(2) (from Linux 6.5 on): the text there would be seen by
        // later readers. EINVAL is what these calls say where they are not supported.
        if owner.is_none() {
            return reply.error(Errno::EINVAL);
        }
        let size = size as usize;
        if let Some(part) = self.texts.read(handle.0, offset, size) {
            return reply.data(&part);
        }
        match self.text(ino, request.pid()) {
            Ok((key, text)) => reply.data(&self.texts.renew(handle.0, key, text, offset, size)),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (container, row, setting) = match self.setting(ino) {
            Ok(found) => found,
            Err(errno) => return reply.error(errno),
        };
        let appends = flags.0 & rustix::fs::OFlags::APPEND.bits() as i32 != 0;
        // Who goes on writing changes nothing (`sysctl_writes_strict`).
        if offset == 0 || appends {
            if let Err(error) = self.containers.write(&container, row, setting, data) {
                return reply.error(match error {
                    WriteError::Refused(Refusal::Invalid) => Errno::EINVAL,
                    WriteError::Refused(Refusal::Final) => Errno::EPERM,
                    WriteError::Save(error) => {
                        tracing::warn!("container {}: {}: {error}", container.record.id, row.path);
                        Errno::EIO
                    }
                });
            }
            // Who reads by the same handle sees what was written.
            self.texts.close(handle.0);
        }
        reply.written(data.len() as u32);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.texts.close(handle.0);
        reply.ok();
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // Always ready, as the kernel's own are. Not implementing it would say the same, but for
        // every later file of this connection too.
        let ready = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        reply.poll(ready | PollEvents::POLLOUT | PollEvents::POLLWRNORM);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(children) = self.children(ino) else {
            return reply.error(Errno::ENOENT);
        };
        let dots = [(".".to_owned(), ino.0), ("..".to_owned(), ROOT)].into_iter();
        let dots = dots.map(|(name, ino)| (name, ino, FileType::Directory));
        let children = children.into_iter().map(|(name, node)| {
            let file = matches!(node, Node::File { .. });
            (name, node.ino(), if file { FileType::RegularFile } else { FileType::Directory })
        });
        let entries = dots.chain(children).enumerate();
        for (i, (name, ino, kind)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            if reply.add(INodeNo(ino), i as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
