//! What is asked about the files of containers, and the answers, apart from the form that FUSE gives
//! them.
//!
//! Nothing here may block on a container: an answer comes from the daemon's memory, from cgroup
//! files and from the host's own /proc.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use fuser::{Errno, FileAttr, FileType, INodeNo, OpenAccMode, PollEvents, PollNotifier};

use super::inode::{Node, Tree};
use super::texts::{Read, Texts};
use sysbox_ipc::paths::{ALL, flat};

use crate::container::Container;
use crate::containers::{Containers, WriteError};
use crate::settings::{self, Refusal, Setting};
use crate::table::{Row, Source};
use crate::triggers::Triggers;
use crate::view::View;
use crate::view::host::Host;

/// Longest mount table that is read to see whether a setting may be written; in a longer one it may
/// not.
const LONGEST_MOUNT_TABLE: u64 = 8 << 20;

/// Answers for the files of all containers.
#[derive(Debug)]
pub struct Desk {
    host: Arc<Host>,
    containers: Arc<Containers>,
    tree: Arc<Tree>,
    texts: Arc<Texts>,
    triggers: Triggers,
}

impl Desk {
    /// Answers for the files of these containers.
    pub fn new(
        host: Arc<Host>,
        containers: Arc<Containers>,
        tree: Arc<Tree>,
        texts: Arc<Texts>,
        triggers: Triggers,
    ) -> Self {
        Self { host, containers, tree, texts, triggers }
    }

    /// The container that an inode number belongs to; 0 for none.
    pub fn key(&self, ino: INodeNo) -> u32 {
        match self.tree.node(ino.0) {
            Some(Node::Directory { key, .. } | Node::File { key, .. }) => key,
            _ => 0,
        }
    }

    /// The node of an inode number, if its container is served.
    pub fn node(&self, ino: INodeNo) -> Option<Node<'_>> {
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
    pub fn child(&self, parent: INodeNo, name: &str) -> Option<Node<'_>> {
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
    pub fn children(&self, ino: INodeNo) -> Option<Vec<(String, Node<'_>)>> {
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

    pub fn attributes(&self, node: &Node) -> Option<FileAttr> {
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
    pub fn setting(&self, ino: INodeNo) -> Result<(Arc<Container>, &'static Row, &Setting), Errno> {
        match self.tree.node(ino.0) {
            Some(Node::File { key, row }) => match &row.source {
                Source::Setting(setting) => {
                    let container = self.containers.get(key).ok_or(Errno::ENOENT)?;
                    Ok((container, row, setting))
                }
                Source::View(_) | Source::Pressure(_) => Err(Errno::EACCES),
            },
            Some(_) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    /// The pressure file of an inode number: the container, and its cgroup's file.
    fn pressure(&self, ino: INodeNo) -> Option<(u32, PathBuf)> {
        let Some(Node::File { key, row: Row { source: Source::Pressure(kind), .. } }) =
            self.tree.node(ino.0)
        else {
            return None;
        };
        let container = self.containers.get(key)?;
        let unified = Path::new(&container.record.unified);
        Some((key, unified.join(format!("{kind}.pressure"))))
    }

    /// Whether anything may be written to a file, ever.
    pub fn takes_writing(&self, ino: INodeNo) -> bool {
        self.setting(ino).is_ok() || self.pressure(ino).is_some()
    }

    /// What poll(2) says of an open pressure file beyond that it can be read and written, as the kernel
    /// says it (`psi_trigger_poll`); none for other files. `waiting` is told of changes.
    pub fn poll(
        &self,
        ino: INodeNo,
        handle: u64,
        waiting: Option<PollNotifier>,
    ) -> Option<PollEvents> {
        self.pressure(ino)?;
        Some(match self.triggers.poll(handle, waiting) {
            None => PollEvents::POLLERR | PollEvents::POLLPRI,
            Some(true) => PollEvents::POLLPRI,
            Some(false) => PollEvents::empty(),
        })
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
        if !writes || self.pressure(ino).is_some() {
            return Ok(());
        }
        let (container, row, _) = self.setting(ino)?;
        if self.tree.mode(row) & 0o222 == 0 {
            return Err(Errno::EACCES);
        }
        let table = format!("proc/{opener}/mountinfo");
        let table = self.host.read_short(&table, LONGEST_MOUNT_TABLE).ok_or(Errno::EROFS)?;
        let key = container.record.key;
        let roots = [format!("/{key}/{}", row.path), format!("/{key}/{ALL}/{}", flat(row.path))];
        settings::is_writable(&table, &roots).then_some(()).ok_or(Errno::EROFS)
    }

    /// Opens a file for thread `opener` and returns its handle.
    pub fn open(&self, ino: INodeNo, mode: OpenAccMode, opener: u32) -> Result<u64, Errno> {
        self.may_open(ino, mode, opener)?;
        let (key, text) = self.text(ino, opener)?;
        Ok(self.texts.open(key, text))
    }

    /// Reads a part of a file for thread `reader`.
    pub fn read(&self, ino: INodeNo, read: &Read, reader: u32) -> Result<Vec<u8>, Errno> {
        if let Some(part) = self.texts.read(read) {
            return Ok(part);
        }
        let (key, text) = self.text(ino, reader)?;
        Ok(self.texts.renew(read, key, text))
    }

    /// Writes to a setting, or a trigger to a pressure file. `goes_on`: not from the beginning, which
    /// changes nothing of a setting (`sysctl_writes_strict`).
    pub fn write(
        &self,
        ino: INodeNo,
        handle: u64,
        data: &[u8],
        goes_on: bool,
    ) -> Result<(), Errno> {
        if let Some((key, file)) = self.pressure(ino) {
            return self.triggers.set(handle, key, &file, data).map_err(Errno::from);
        }
        if goes_on {
            return Ok(());
        }
        let (container, row, setting) = self.setting(ino)?;
        self.containers.write(&container, row, setting, data).map_err(|error| match error {
            WriteError::Refused(Refusal::Invalid) => Errno::EINVAL,
            WriteError::Refused(Refusal::Final) => Errno::EPERM,
            WriteError::Save(error) => {
                super::ERRORS.increment();
                tracing::warn!("container {}: {}: {error}", container.record.id, row.path);
                Errno::EIO
            }
        })?;
        // Who reads by the same handle sees what was written.
        self.texts.close(handle);
        Ok(())
    }

    /// Closes a handle.
    pub fn close(&self, handle: u64) {
        self.triggers.close(handle);
        self.texts.close(handle);
    }
}
