//! After a start: which containers still live, which have ended meanwhile.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::resume::user_namespace;
use super::{Live, Manager};
use crate::coherence::{Container, View};
use crate::error::{Doing as _, Result};
use crate::events::Kind;
use crate::leftovers;
use crate::registry::{Process, Record, State as Life, VERSION, VolumeRecord, process};
use crate::volumes::Orphan;

impl Manager {
    /// Brings the records up to date with the world. Nothing of a live container is touched.
    pub(super) fn recover(&self) -> Result<()> {
        if let Err(e) = self.adopt_orphans() {
            tracing::error!("{e}");
        }
        let records: Vec<Record> = self.lock().registry.iter().cloned().collect();
        for record in records {
            let id = record.id.clone();
            let result = match record.state {
                Life::Stopped => {
                    if let Some(owner) = &record.owner {
                        self.owners.watch(&id, &owner.path);
                    }
                    Ok(())
                }
                Life::Creating if self.can_go_on(&record) => {
                    self.expect(&record);
                    Ok(())
                }
                Life::Creating => self.undo(&record),
                Life::Running | Life::Exited => match self.alive(&record) {
                    Some((init, pidfd)) => self.take_up(&record, init, pidfd),
                    None => {
                        tracing::info!(container = id, "has ended while the manager was away");
                        self.forget_files(&record);
                        self.note(&record);
                        self.end(&record, false)
                    }
                },
            };
            // One that fails (the disk is full) must not keep the others from being served.
            if let Err(e) = result {
                tracing::error!(container = id, "taking it up: {e}");
            }
        }
        {
            let state = self.lock();
            let lives = |key| state.registry.iter().any(|r| r.key == key && r.is_live());
            self.kept.retain(lives);
        }
        self.sweep();
        Ok(())
    }

    /// Volumes whose record was lost get one again, from what is written beside them.
    pub(super) fn adopt_orphans(&self) -> Result<()> {
        let orphans = {
            let state = self.lock();
            self.volumes.orphans(|id| state.registry.get(id).is_some())
        };
        for Orphan { id, owner, stores } in
            orphans.doing(|| "looking through the volumes".to_owned())?
        {
            tracing::warn!(
                container = id,
                "has volumes but no record; taken for a stopped container"
            );
            let volumes = stores.iter().map(|store| VolumeRecord {
                name: store.name.to_owned(),
                destination: store.destination.to_owned(),
                new: false,
                in_layer: None,
            });
            let mut state = self.lock();
            let doing = || format!("recording container {id}");
            let mut record = Record {
                version: VERSION,
                id: id.clone(),
                key: state.registry.next_key().doing(doing)?,
                state: Life::Stopped,
                rootfs: owner.path.clone(),
                owner: Some(owner),
                uid_mappings: Vec::new(),
                gid_mappings: Vec::new(),
                given: false,
                cgroups: Default::default(),
                state_dir: Default::default(),
                boot_id: self.boot_id.clone(),
                creator: None,
                init: None,
                userns_inode: 0,
                root_mount: None,
                created_boottime_ns: 0,
                volumes: volumes.collect(),
            };
            record.stop();
            state.registry.put(record).doing(doing)?;
        }
        Ok(())
    }

    /// Whether a registration that was under way when the manager died was complete, and its runtime
    /// lives.
    fn can_go_on(&self, record: &Record) -> bool {
        let runtime_lives = || record.creator.is_some_and(|c| c.open().is_some());
        record.boot_id == self.boot_id && record.userns_inode != 0 && runtime_lives()
    }

    /// A registration that was under way when the manager died, and that nobody can go on with.
    fn undo(&self, record: &Record) -> std::io::Result<()> {
        tracing::info!(container = record.id, "its creation was interrupted; taken back");
        self.forget_files(record);
        let same_boot = record.boot_id == self.boot_id;
        let runtime_lives = same_boot && record.creator.is_some_and(|c| c.open().is_some());
        if same_boot && !runtime_lives {
            leftovers::remove(&record.id, &record.cgroups, &record.state_dir);
        }
        self.end(record, true)
    }

    /// `sysbox-fs` of this boot may know the container still.
    fn forget_files(&self, record: &Record) {
        if record.boot_id == self.boot_id {
            self.fs.remove_later(&record.id);
        }
    }

    fn alive(&self, record: &Record) -> Option<(Process, OwnedFd)> {
        let init = record.init.filter(|_| record.boot_id == self.boot_id)?;
        Some((init, init.open()?))
    }

    /// A container that runs on.
    fn take_up(&self, record: &Record, init: Process, pidfd: OwnedFd) -> std::io::Result<()> {
        let id = &record.id;
        let userns = user_namespace(record, init.pid);
        if userns.is_none() {
            tracing::warn!(
                container = id,
                "its user namespace is not found; `exec` will not work until it is started anew"
            );
        }
        let view = self.view_of(record);
        if let Some(view) = &view {
            let root = self.container_root(record, init);
            let cgroup = record.cgroups.unified.clone().into();
            let init_pid = init.pid;
            view.set_container(root.map(|root| Container::new(root, init_pid, cgroup)));
            self.coherence.watch(record.key, Arc::clone(view), &record.rootfs);
        }
        let mut state = self.lock();
        state.live.insert(id.clone(), Live { container: None, userns, view });
        if record.state != Life::Running {
            state.registry.update(id, |record| record.state = Life::Running)?;
        }
        drop(state);
        self.events.add(Kind::TakenUp, id, "");
        self.ask_for_files(record);
        self.inits.watch(record.key, pidfd)
    }

    /// Both overlays of a container's root, as far as the engine's side of it.
    pub(super) fn view_of(&self, record: &Record) -> Option<Arc<View>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let rootfs = rustix::fs::open(&record.rootfs, flags, Mode::empty()).ok()?;
        View::new(rootfs).map(Arc::new)
    }

    /// The root of a running init, if it is the mount that it had at commit. By now init is hostile
    /// and may have another root, of a file system that it serves itself: so only the mount's id is
    /// compared, which asks no file system.
    fn container_root(&self, record: &Record, init: Process) -> Option<OwnedFd> {
        let at_commit = record.root_mount?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(format!("/proc/{}/root", init.pid), flags, Mode::empty()).ok()?;
        (process::fdinfo(root.as_fd(), "mnt_id:") == Some(at_commit)).then_some(root)
    }
}
