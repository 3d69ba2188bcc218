//! `Register`: everything that a new container needs from the manager.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use sysbox_ipc::{crash, proto};
use sysbox_kernel::ns::{Birth, IdMap};

use super::{Live, Manager, Opaque, Runtime, State, validate};
use crate::broker;
use crate::coherence::View;
use crate::error::{Doing as _, Error, Result};
use crate::events::Kind;
use crate::fs_link::Reserved;
use crate::ids::{Holder, IdMapping, Sharing, host_root, sharing};
use crate::registry::{Process, Record, State as Life, VERSION, VolumeRecord, process};
use crate::volumes::{Needed, Owner, inode, upper_of};

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
        let (mut record, former) = self.enter(&request, ids, owner, creator)?;
        let id = record.id.clone();
        let prepared = self
            .prepare(&request, &mut record, &rootfs, joined)
            .inspect_err(|_| self.leave(&id, former))?;
        crash::point("register.recorded");
        let done = self.equip(&request, record, rootfs, prepared, &fs).inspect_err(|_| {
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

    /// Gives the container ids, and a record that is not written yet. With it comes the record of an
    /// earlier life.
    fn enter(
        &self,
        request: &proto::Register,
        ids: Ids,
        owner: Option<Owner>,
        creator: Option<Process>,
    ) -> Result<(Record, Option<Record>)> {
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
        let record = Record {
            version: VERSION,
            id: id.clone(),
            key: state.registry.next_key().doing(|| format!("recording container {id}"))?,
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
        let former = state.registry.take(record.clone());
        state.live.insert(id.clone(), Live::default());
        Ok((record, former))
    }

    /// Takes back what [`enter`](Self::enter) gave.
    fn leave(&self, id: &str, former: Option<Record>) {
        let mut state = self.lock();
        state.live.remove(id);
        state.registry.put_back(id, former);
        drop(state);
        self.released.notify_all();
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

    /// Makes what ends with the manager, and writes the record.
    fn prepare(
        &self,
        request: &proto::Register,
        record: &mut Record,
        rootfs: &OwnedFd,
        joined: Option<OwnedFd>,
    ) -> Result<Prepared> {
        let (uids, gids) = (kernel_map(&record.uid_mappings), kernel_map(&record.gid_mappings));
        let id = &request.id;
        let doing = || format!("making the user namespace of container {id}");
        let remedy =
            |e: Error| e.remedy("see that sysctl user.max_user_namespaces is large enough");
        let begun = match joined {
            Some(joined) => Ok(joined),
            None => Err(Birth::begin(&uids, &gids).doing(doing)?),
        };
        // While the namespace is born.
        let needed = self.plan_stores(request, record, rootfs)?;
        let (userns, birth) = match begun {
            Ok(joined) => (joined, None),
            Err(birth) => (birth.finish(&uids, &gids).doing(doing).map_err(remedy)?, Some(birth)),
        };
        record.userns_inode = inode(&userns).doing(|| "looking at a user namespace".to_owned())?;
        self.lock().registry.put(record.clone()).doing(|| format!("recording container {id}"))?;
        Ok(Prepared { userns, needed, _birth: birth })
    }

    /// Makes what the record promises.
    fn equip(
        &self,
        request: &proto::Register,
        record: Record,
        rootfs: OwnedFd,
        prepared: Prepared,
        fs: &Reserved,
    ) -> Result<Registered> {
        let id = record.id.clone();
        let Prepared { userns, needed, _birth } = prepared;
        let volumes = self.make_volumes(&record, &needed)?;
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

/// What a registration has when its record is written.
struct Prepared {
    userns: OwnedFd,
    needed: Vec<Needed>,
    /// The process in which the namespace was born. It dies while other things are done.
    _birth: Option<Birth>,
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

fn kernel_map(mappings: &[IdMapping]) -> Vec<IdMap> {
    mappings.iter().map(Into::into).collect()
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
