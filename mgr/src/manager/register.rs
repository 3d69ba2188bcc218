//! `Register`: everything that a new container needs from the manager.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use sysbox_ipc::{crash, proto};

use super::{Live, Manager, Opaque, Runtime, State, validate};
use crate::broker;
use crate::coherence::View;
use crate::error::{Doing as _, Error, Result};
use crate::events::Kind;
use crate::fs_link::Reserved;
use crate::ids::{Holder, IdMapping, Sharing, host_root, sharing};
use crate::registry::{Process, Record, State as Life, VERSION, VolumeRecord, process};
use crate::volumes::{Owner, inode, upper_of};

/// How long a registration waits for what is left of a failed one. The roll-back takes milliseconds.
const ROLL_BACK_PATIENCE: Duration = Duration::from_secs(5);

/// A successful registration.
#[derive(Debug)]
pub struct Registered {
    /// The answer.
    pub reply: proto::Registered,
    /// The container's user namespace, to be sent along.
    pub userns: OwnedFd,
}

impl Manager {
    /// Registers a container. On failure nothing of it is left; on success it must be followed by
    /// [`commit`](Self::commit) or [`roll_back`](Self::roll_back).
    ///
    /// `joined`: the user namespace that the spec names. `creator`: the runtime process that asks.
    pub fn register(
        &self,
        request: proto::Register,
        rootfs: OwnedFd,
        joined: Option<OwnedFd>,
        creator: Option<Process>,
    ) -> Result<Registered> {
        let ids = ids(&request, joined.as_ref())?;
        let stat = fstat(&rootfs).doing(|| format!("looking at rootfs {}", request.rootfs))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let rootfs = &request.rootfs;
            return Err(Error::new(format!("rootfs {rootfs} is not a directory")));
        }
        // Before anything is made: the usual reason for a failure is that a daemon is not running.
        // The last manager has not answered to this; what it had made is not known to the runtime.
        if self.adopt(&request.id, creator) {
            self.roll_back(&request.id, Runtime::Alive);
        }
        self.wait_for_roll_back(&request.id);
        let fs = self.fs.reserve(&request.id)?;
        self.sweep();
        let owner = request.inner_stores.then(|| owner(&request, &rootfs)).transpose()?;

        if ids.uids.is_empty() {
            self.make_room(request.id_range_size);
        }
        let record = self.enter(&request, ids, owner, creator)?;
        crash::point("register.recorded");
        let id = record.id.clone();
        let done = self.equip(&request, record, rootfs, joined, &fs).inspect_err(|_| {
            // Rolling back calls sysbox-fs, for which it needs the turn that we have.
            drop(fs);
            self.roll_back(&id, Runtime::Alive);
        })?;
        crash::point("register.equipped");
        self.events.add(Kind::Created, &id, "");
        Ok(done)
    }

    /// A runtime that has just failed with this id is gone, but its connection's end may not have been
    /// seen yet: whoever tries again at once need not know.
    fn wait_for_roll_back(&self, id: &str) {
        let under_way = |state: &mut State| {
            let record = state.registry.get(id).filter(|record| record.state == Life::Creating);
            record.and_then(|record| record.creator).is_some_and(|runtime| runtime.open().is_none())
        };
        let waited = self.released.wait_timeout_while(self.lock(), ROLL_BACK_PATIENCE, under_way);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Sees that a range is free. Adding an entry to the files can take long (useradd may hold their
    /// lock), so it is not done under ours.
    fn make_room(&self, wanted: u32) {
        let (files, used) = {
            let state = self.lock();
            let used: Vec<_> = state.registry.ids_in_use().map(|(range, _)| range).collect();
            if state.ids.has_room(&used, wanted) {
                return;
            }
            (state.ids.files().clone(), used)
        };
        if let Err(e) = files.grow(&used, wanted) {
            tracing::warn!("{e}");
        }
    }

    /// Gives the container ids and writes its first record.
    fn enter(
        &self,
        request: &proto::Register,
        ids: Ids,
        owner: Option<Owner>,
        creator: Option<Process>,
    ) -> Result<Record> {
        let id = &request.id;
        let mut state = self.lock();
        let (volumes, owner) = match state.registry.get(id) {
            Some(old) if old.is_live() => {
                let remedy =
                    if old.state == Life::Exited { "delete it first" } else { "choose another id" };
                return Err(Error::new(format!(
                    "container {id} exists already ({})",
                    old.state.name()
                ))
                .remedy(remedy));
            }
            // Without inner stores this time, the volumes and their owner just wait for the next.
            Some(old) => {
                (self.kept_volumes(old, owner.as_ref())?, owner.or_else(|| old.owner.clone()))
            }
            None => (Vec::new(), owner),
        };
        let mut given = false;
        let userns_inode = ids.userns_inode;
        let (uids, gids) = if let (true, Some(range)) = (ids.uids.is_empty(), state.ids.shared()) {
            given = true;
            (vec![IdMapping::whole(range)], vec![IdMapping::whole(range)])
        } else if ids.uids.is_empty() {
            let used: Vec<_> = state.registry.ids_in_use().map(|(range, _)| range).collect();
            let range = state.ids.allocate(&used, request.id_range_size)?;
            (vec![IdMapping::whole(range)], vec![IdMapping::whole(range)])
        } else {
            given = self.sharing(&state, request, &ids)?;
            (ids.uids, ids.gids)
        };
        let doing = || format!("recording container {id}");
        let record = Record {
            version: VERSION,
            id: id.clone(),
            key: state.registry.next_key().doing(doing)?,
            state: Life::Creating,
            rootfs: PathBuf::from(&request.rootfs),
            owner,
            uid_mappings: uids,
            gid_mappings: gids,
            given,
            cgroups: request.cgroups.clone().unwrap_or_default().into(),
            state_dir: PathBuf::from(&request.state_dir),
            boot_id: self.boot_id.clone(),
            creator,
            init: None,
            userns_inode,
            root_mount: None,
            created_boottime_ns: process::now_ns(),
            volumes,
        };
        state.registry.put(record.clone()).doing(doing)?;
        state.live.insert(id.clone(), Live::default());
        Ok(record)
    }

    /// Whether the container may have the ids that come with it; says whether the engine gave them.
    fn sharing(&self, state: &State, request: &proto::Register, ids: &Ids) -> Result<bool> {
        let id = &request.id;
        let new =
            Holder { id, uids: &ids.uids, gids: &ids.gids, given: true, userns: ids.userns_inode };
        match sharing::check(new, state.registry.iter().map(Record::holder))? {
            Sharing::Alone => Ok(true),
            Sharing::Pod { given } => Ok(given),
            Sharing::Engine(other) => {
                tracing::info!(
                    container = id,
                    other,
                    "the engine gives both the same ids: nothing but their namespaces keeps them apart"
                );
                Ok(true)
            }
        }
    }

    /// The volumes that a stopped container of this id has. They are another container's, and deleted,
    /// if the owner is not the same.
    fn kept_volumes(&self, old: &Record, owner: Option<&Owner>) -> Result<Vec<VolumeRecord>> {
        match (&old.owner, owner) {
            (Some(then), Some(now)) if !then.is(now) => {
                let id = &old.id;
                tracing::warn!(
                    container = id,
                    "had volumes under another owner ({}); they are removed",
                    then.path.display()
                );
                self.volumes
                    .discard_all(id)
                    .doing(|| format!("removing the volumes of an earlier container {id}"))?;
                Ok(Vec::new())
            }
            _ => Ok(old.volumes.clone()),
        }
    }

    /// Makes what the record promises.
    fn equip(
        &self,
        request: &proto::Register,
        mut record: Record,
        rootfs: OwnedFd,
        joined: Option<OwnedFd>,
        fs: &Reserved,
    ) -> Result<Registered> {
        let id = record.id.clone();
        let userns = joined.map_or_else(|| user_namespace(&record), Ok)?;
        record.userns_inode = inode(&userns).doing(|| "looking at a user namespace".to_owned())?;

        let volumes = self.make_stores(request, &mut record, &rootfs)?;
        let missing = || Error::new(format!("the mappings of container {id} have no root"));
        let added = fs.add(proto::AddContainer {
            id: id.clone(),
            key: record.key,
            uid: host_root(&record.uid_mappings).ok_or_else(missing)?,
            gid: host_root(&record.gid_mappings).ok_or_else(missing)?,
            cgroups: Some((&record.cgroups).into()),
            created_boottime_ns: record.created_boottime_ns,
            lifetime: lifetime(request, &rootfs),
        })?;

        let container = broker::Container {
            id: id.clone(),
            userns: userns.try_clone().doing(|| "copying a descriptor".to_owned())?,
            emulated_dir: PathBuf::from(&added.emulated_dir),
            emulated_files: added.emulated_files.clone(),
            made: broker::Made::default(),
        };
        let live = Live {
            container: Some(Opaque(Arc::new(container))),
            userns: None,
            view: View::new(rootfs).map(Arc::new),
        };
        self.lock().live.insert(id, live);
        Ok(Registered {
            reply: proto::Registered {
                uid_mappings: record.uid_mappings.iter().map(Into::into).collect(),
                gid_mappings: record.gid_mappings.iter().map(Into::into).collect(),
                volumes,
                emulated_dir: added.emulated_dir,
                emulated_files: added.emulated_files,
            },
            userns,
        })
    }
}

/// The ids that a container comes with; none if it is to get a range of ours.
struct Ids {
    uids: Vec<IdMapping>,
    gids: Vec<IdMapping>,
    /// Of the namespace that it joins; 0 without.
    userns_inode: u64,
}

fn ids(request: &proto::Register, joined: Option<&OwnedFd>) -> Result<Ids> {
    let (mut uids, mut gids) = validate::request(request)?;
    let mut userns_inode = 0;
    if let Some(userns) = joined {
        let doing = || format!("joining the user namespace that container {} names", request.id);
        let (u, g) = sysbox_kernel::ns::mappings_of(userns).doing(doing)?;
        uids = u.iter().map(IdMapping::from).collect();
        gids = g.iter().map(IdMapping::from).collect();
        validate::mappings(&uids, &gids)?;
        userns_inode = inode(userns).doing(doing)?;
    }
    Ok(Ids { uids, gids, userns_inode })
}

fn user_namespace(record: &Record) -> Result<OwnedFd> {
    sysbox_kernel::ns::user_namespace(
        &record.uid_mappings.iter().map(Into::into).collect::<Vec<_>>(),
        &record.gid_mappings.iter().map(Into::into).collect::<Vec<_>>(),
    )
    .doing(|| format!("making the user namespace of container {}", record.id))
    .map_err(|e| e.remedy("see that sysctl user.max_user_namespaces is large enough"))
}

/// Names the root file system for `sysbox-fs`; nothing if it can't be told from another.
fn lifetime(request: &proto::Register, rootfs: &OwnedFd) -> String {
    let owner = owner(request, rootfs);
    owner.map(|o| format!("{} {}", o.path.display(), o.inode)).unwrap_or_default()
}

/// What the volumes will live as long as.
fn owner(request: &proto::Register, rootfs: &OwnedFd) -> Result<Owner> {
    let path = if !request.owner_dir.is_empty() {
        PathBuf::from(&request.owner_dir)
    } else {
        upper_of(rootfs).unwrap_or_else(|| PathBuf::from(&request.rootfs))
    };
    Owner::of(&path).doing(|| {
        let (path, id) = (path.display(), &request.id);
        format!("looking at {path}, which the volumes of container {id} are to live as long as")
    })
}
