//! Answers `sysbox-mgr`: which containers to serve.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sysbox_daemon::{log, usage};
use sysbox_ipc::proto::{
    AddContainer, Added, Empty, Error, FsReply, FsRequest, FsStatus, fs_reply, fs_request,
};
use sysbox_ipc::{Connection, Listener, PROTOCOL, crash};

use crate::container::Record;
use crate::containers::Containers;
use crate::render;
use crate::session::Session;
use crate::view::View;
use crate::view::host::Host;

/// What the calls work on.
#[derive(Debug)]
pub struct Service {
    /// The host.
    pub host: Arc<Host>,
    /// The containers.
    pub containers: Arc<Containers>,
    /// The file system that shows their files.
    pub session: Session,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
}

impl Service {
    /// Serves connections for ever, each by a thread: they are few, the manager's only.
    pub fn run(self: Arc<Self>, listener: &Listener) {
        loop {
            let service = self.clone();
            let accepted = listener.accept().and_then(|connection| {
                let thread = std::thread::Builder::new().name("call".into());
                thread.spawn(move || service.serve(&connection))
            });
            if let Err(e) = accepted {
                tracing::warn!("accepting a connection: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn serve(&self, connection: &Connection) {
        loop {
            let request = match connection.receive::<FsRequest>() {
                Ok(Some(incoming)) => incoming.message,
                Ok(None) => return,
                Err(e) => return tracing::warn!("receiving a request: {e}"),
            };
            let result = self.answer(request).unwrap_or_else(fs_reply::Result::Error);
            if let Err(e) = connection.send(&FsReply { result: Some(result) }, &[]) {
                return tracing::warn!("sending an answer: {e}");
            }
        }
    }

    /// Does what a request asks for.
    pub fn answer(&self, request: FsRequest) -> Result<fs_reply::Result, Error> {
        if request.protocol > PROTOCOL {
            return Err(error(
                format!("protocol {} is newer than this daemon's {PROTOCOL}", request.protocol),
                "install sysbox-mgr and sysbox-fs of the same release",
            ));
        }
        match request.call {
            Some(fs_request::Call::AddContainer(add)) => self.add(add).map(fs_reply::Result::Added),
            Some(fs_request::Call::RemoveContainer(remove)) => {
                self.remove(&remove.id)?;
                Ok(fs_reply::Result::Ok(Empty {}))
            }
            Some(fs_request::Call::Sysinfo(ask)) => {
                let container = self.containers.find(&ask.id).ok_or_else(|| {
                    error(format!("container {} is not known", ask.id), "see that it runs")
                })?;
                let view = View::new(&self.host, &container, ask.tid);
                Ok(fs_reply::Result::Sysinfo(render::sysinfo(&view)))
            }
            Some(fs_request::Call::Status(_)) => Ok(fs_reply::Result::Status(self.status())),
            Some(fs_request::Call::SetLogLevel(set)) => {
                log::set_level(&set.level).map_err(|e| error(e.to_string(), ""))?;
                Ok(fs_reply::Result::Ok(Empty {}))
            }
            None => Err(error(
                "a request that this daemon does not know".into(),
                "install sysbox-mgr and sysbox-fs of the same release",
            )),
        }
    }

    fn add(&self, add: AddContainer) -> Result<Added, Error> {
        let cgroups = add.cgroups.unwrap_or_default();
        let mut v1: Vec<_> = cgroups.v1.into_iter().collect();
        v1.sort();
        let record = Record {
            id: add.id,
            key: add.key,
            uid: add.uid,
            gid: add.gid,
            unified: cgroups.unified,
            v1,
            created_boottime_ns: add.created_boottime_ns,
            lifetime: add.lifetime,
        };
        let (id, key) = (record.id.clone(), record.key);
        self.containers.add(record).map_err(|e| error(e.to_string(), ""))?;
        crash::point("add.recorded");
        tracing::info!("serving container {id} as {key}");
        Ok(Added {
            emulated_dir: self.mountpoint.join(key.to_string()).display().to_string(),
            emulated_files: self.session.files().into_iter().map(str::to_owned).collect(),
        })
    }

    fn remove(&self, id: &str) -> Result<(), Error> {
        let removed = self.containers.remove(id);
        let removed =
            removed.map_err(|e| error(format!("container {id}: forgetting it: {e}"), ""))?;
        crash::point("remove.recorded");
        if let Some(container) = removed {
            self.session.forget(container.record.key);
            tracing::info!("no longer serving container {id}");
        }
        Ok(())
    }

    fn status(&self) -> FsStatus {
        FsStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id() as i32,
            containers: self.containers.all().iter().map(|c| c.record.id.clone()).collect(),
            resources: Some(usage::resources()),
            reads: Some(crate::session::READS.snapshot()),
            errors: crate::session::ERRORS.get(),
            log_level: log::level(),
        }
    }
}

fn error(message: String, remedy: &str) -> Error {
    Error { message, remedy: remedy.to_owned() }
}
