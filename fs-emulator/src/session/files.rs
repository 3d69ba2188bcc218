//! Answers the kernel's requests for the emulated files.
//!
//! What takes time goes through the [lines](super::line), everything else is answered by whichever
//! thread took the request.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyPoll, ReplyWrite,
    Request, WriteFlags,
};

use sysbox_kernel::features::Feature;

use super::READS;
use super::desk::Desk;
use super::inode::{Node, ROOT};
use super::line::Lines;
use super::texts::{Read, Texts};

/// How long the kernel may keep names and attributes: they never change, and a container's number
/// is never used again.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// What is used of a FUSE connection where the kernel offers it.
const WANTED: InitFlags = InitFlags::FUSE_PARALLEL_DIROPS
    .union(InitFlags::FUSE_DO_READDIRPLUS)
    .union(InitFlags::FUSE_HAS_RESEND);
/// Set in the number of a request that is sent again (`FUSE_UNIQUE_RESEND`).
const RESENT: u64 = 1 << 63;
/// Longest write that is taken at once; a setting is one line.
const LONGEST_WRITE: u32 = 4096;

/// The emulated files of all containers.
#[derive(Debug)]
pub struct Files {
    desk: Arc<Desk>,
    texts: Arc<Texts>,
    lines: Lines,
    agreed: Arc<OnceLock<u64>>,
}

impl Files {
    /// The files that `desk` answers for, with these texts. When the connection with the kernel is up,
    /// `agreed` holds the flags that both sides agreed on.
    pub fn new(desk: Desk, texts: Arc<Texts>, lines: Lines, agreed: Arc<OnceLock<u64>>) -> Self {
        Self { desk: Arc::new(desk), texts, lines, agreed }
    }

    /// Answers a request about `ino`, now or when it is its container's turn.
    fn serve(&self, ino: INodeNo, answer: impl FnOnce(&Desk) + Send + 'static) {
        let desk = self.desk.clone();
        self.lines.serve(self.desk.key(ino), move || answer(&desk));
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = WANTED;
        wanted.set(InitFlags::FUSE_HAS_RESEND, Feature::FuseResend.may_be_used());
        let usable = wanted & config.capabilities();
        // Asked for one by one what the kernel offered: this can't be refused.
        let _ = config.add_capabilities(usable);
        let _ = config.set_max_write(LONGEST_WRITE);
        if !usable.contains(InitFlags::FUSE_HAS_RESEND) {
            self.texts.may_be_asked_twice();
        }
        let _ = self.agreed.set(usable.bits());
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let node = name.to_str().and_then(|name| self.desk.child(parent, name));
        match node.and_then(|node| self.desk.attributes(&node)) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.desk.node(ino).and_then(|node| self.desk.attributes(&node)) {
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
        let node = self.desk.node(ino).filter(|_| !refused && self.desk.takes_writing(ino));
        match node.and_then(|node| self.desk.attributes(&node)) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::EPERM),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (mode, opener) = (flags.acc_mode(), request.pid());
        let begun = Instant::now();
        self.serve(ino, move |desk| {
            match desk.open(ino, mode, opener) {
                Ok(handle) => {
                    let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
                    reply.opened(FileHandle(handle), flags);
                }
                Err(errno) => reply.error(errno),
            }
            READS.observe(begun.elapsed());
        });
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
        let (number, reader) = (request.unique().0 & !RESENT, request.pid());
        let read = Read { handle: handle.0, request: number, offset, size: size as usize };
        self.serve(ino, move |desk| match desk.read(ino, &read, reader) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        });
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
        let appends = flags.0 & rustix::fs::OFlags::APPEND.bits() as i32 != 0;
        let goes_on = offset != 0 && !appends;
        let data = data.to_vec();
        self.serve(ino, move |desk| match desk.write(ino, handle.0, &data, goes_on) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        });
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
        self.desk.close(handle.0);
        reply.ok();
    }

    fn poll(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        _: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Always ready, as the kernel's own are; pressure files can say more.
        let ready = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        let ready = ready | PollEvents::POLLOUT | PollEvents::POLLWRNORM;
        let waits = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        let more = self.desk.poll(ino, handle.0, waits.then_some(notifier));
        reply.poll(ready | more.unwrap_or(PollEvents::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(children) = self.desk.children(ino) else {
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

    /// Names with attributes: who is about to mount all files of a container lists their directories
    /// first, and then the kernel need not ask for each.
    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(children) = self.desk.children(ino) else {
            return reply.error(Errno::ENOENT);
        };
        let dots = [(".", self.desk.node(ino)), ("..", Some(Node::Root))].into_iter();
        let dots = dots.filter_map(|(name, node)| Some((name.to_owned(), node?)));
        let entries = dots.chain(children).enumerate();
        for (i, (name, node)) in entries.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            // A container that is just being forgotten has none.
            let Some(attributes) = self.desk.attributes(&node) else { continue };
            let next = i as u64 + 1;
            if reply.add(attributes.ino, next, name, &TTL, &attributes, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }
}
