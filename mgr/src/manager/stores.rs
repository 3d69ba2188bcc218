//! The stores of inner engines that a new container gets.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use sysbox_ipc::proto;

use super::Manager;
use crate::coherence::View;
use crate::error::{Doing as _, Result};
use crate::registry::{Record, VolumeRecord};
use crate::volumes::{Layer, Needed};

impl Manager {
    /// What stores the container needs. Those that it has not yet are made, where that is possible in its
    /// own layer, and otherwise become volumes of ours, by [`make_volumes`](Self::make_volumes); the
    /// record names them.
    pub(super) fn plan_stores(
        &self,
        request: &proto::Register,
        record: &mut Record,
        rootfs: &OwnedFd,
    ) -> Result<Vec<Needed>> {
        let id = &request.id;
        let kept: Vec<_> = record.volumes.iter().map(|v| v.name.clone()).collect();
        let has = |name: &str| kept.iter().any(|k| k == name);
        let needed = if request.inner_stores {
            self.volumes.plan(rootfs.as_fd(), &request.mount_destinations, has)
        } else {
            Vec::new()
        };
        let layer = if needed.is_empty() { None } else { Layer::of(rootfs.as_fd()) };
        for store in needed.iter().filter(|n| !has(&n.name)) {
            let in_layer =
                layer.as_ref().map(|layer| in_layer(layer, id, rootfs, store)).transpose()?;
            record.volumes.push(VolumeRecord {
                name: store.name.clone(),
                destination: store.destination.clone(),
                new: true,
                in_layer,
            });
        }
        if layer.is_some() && !needed.is_empty() {
            // What was made below it by another way the engine's mount has not heard of.
            if let Some(view) = rootfs.try_clone().ok().and_then(View::new) {
                view.refresh();
            }
        }
        Ok(needed)
    }

    /// Makes the volumes that the record names, which has been written: a crash leaves none that no
    /// record knows.
    pub(super) fn make_volumes(
        &self,
        record: &Record,
        needed: &[Needed],
    ) -> Result<Vec<proto::Volume>> {
        let id = &record.id;
        let mut volumes = Vec::new();
        for store in needed {
            let Some(volume) = record.volumes.iter().find(|v| v.name == store.name) else {
                continue;
            };
            if let Some(owner) =
                record.owner.as_ref().filter(|_| volume.new && volume.in_layer.is_none())
            {
                self.volumes.create(id, owner, store)?;
            }
            volumes.push(proto::Volume {
                source: self.volume_path(id, volume).display().to_string(),
                destination: volume.destination.clone(),
            });
        }
        Ok(volumes)
    }
}

fn in_layer(layer: &Layer, id: &str, rootfs: &OwnedFd, store: &Needed) -> Result<PathBuf> {
    let destination = &store.destination;
    layer
        .store(rootfs.as_fd(), destination, store.mode)
        .doing(|| format!("making {destination} ready in the layer of container {id}"))
        .map_err(|e| e.remedy("see that the engine's data directory has room and is writable"))
}
