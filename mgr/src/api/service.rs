//! The calls of the API.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sysbox_daemon::{log, usage};
use sysbox_ipc::proto::{FsStatus, Resources};
use sysbox_ipc::{FsClient, PROTOCOL};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::proto::{
    self, Daemon, EventsRequest, GcReply, GcRequest, ListReply, ListRequest, LogLevelReply,
    LogLevelRequest, MetricsReply, MetricsRequest, VersionReply, VersionRequest, VolumesReply,
    VolumesRequest, sysbox_server::Sysbox,
};
use super::{containers, prometheus};
use crate::events::Event;
use crate::manager::Manager;
use crate::manager::gc::{Action, Leftover};

type Reply<T> = Result<Response<T>, Status>;

/// Events that a slow listener may be behind, before the stream waits for it.
const BACKLOG: usize = 64;

/// Answers from the manager.
#[derive(Clone, Debug)]
pub struct Service {
    manager: Arc<Manager>,
}

impl Service {
    /// Answers from this manager.
    pub fn new(manager: Arc<Manager>) -> Self {
        Self { manager }
    }

    /// Does work that may take a moment, away from the thread that serves connections.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, Status> + Send + 'static,
    ) -> Reply<T> {
        let manager = self.manager.clone();
        let done = tokio::task::spawn_blocking(move || work(&manager)).await;
        let done = done.map_err(|e| Status::internal(format!("the call broke down: {e}")))?;
        done.map(Response::new)
    }
}

#[tonic::async_trait]
impl Sysbox for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Reply<VersionReply> {
        self.work(|_| {
            let files = FsClient::connect().and_then(|client| client.status());
            let files_error = files.as_ref().err().map(ToString::to_string).unwrap_or_default();
            Ok(VersionReply {
                manager: Some(own_daemon()),
                files: files.ok().map(files_daemon),
                files_error,
                protocol: PROTOCOL,
            })
        })
        .await
    }

    async fn list(&self, request: Request<ListRequest>) -> Reply<ListReply> {
        let which = request.into_inner().which;
        self.work(move |manager| Ok(ListReply { containers: containers::list(manager, &which) }))
            .await
    }

    type EventsStream = ReceiverStream<Result<proto::Event, Status>>;

    async fn events(&self, request: Request<EventsRequest>) -> Reply<Self::EventsStream> {
        let request = request.into_inner();
        let manager = self.manager.clone();
        let mut last = match request.after {
            0 if request.all => 0,
            0 => manager.events().last(),
            after => after,
        };
        let (sender, stream) = mpsc::channel(BACKLOG);
        tokio::spawn(async move {
            loop {
                let events = if request.no_follow {
                    manager.events().after(last)
                } else {
                    tokio::select! {
                        events = manager.events().wait_after(last) => events,
                        // Nobody listens any more.
                        () = sender.closed() => return,
                    }
                };
                for event in events {
                    last = event.number;
                    if sender.send(Ok(describe(&manager, event))).await.is_err() {
                        return;
                    }
                }
                if request.no_follow {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn volumes(&self, request: Request<VolumesRequest>) -> Reply<VolumesReply> {
        let sizes = request.into_inner().sizes;
        self.work(move |manager| {
            let all = containers::list(manager, "").into_iter();
            let mut volumes: Vec<_> = all.flat_map(|container| container.volumes).collect();
            for volume in volumes.iter_mut().filter(|_| sizes) {
                volume.bytes = containers::space(Path::new(&volume.source));
            }
            Ok(VolumesReply { volumes })
        })
        .await
    }

    async fn gc(&self, request: Request<GcRequest>) -> Reply<GcReply> {
        let dry_run = request.into_inner().dry_run;
        self.work(move |manager| {
            let found = if dry_run { manager.leftovers() } else { manager.collect() };
            let found = found
                .map_err(|e| Status::internal(format!("looking for what is left over: {e}")))?;
            Ok(GcReply { leftovers: found.into_iter().map(|l| leftover(l, dry_run)).collect() })
        })
        .await
    }

    async fn log_level(&self, request: Request<LogLevelRequest>) -> Reply<LogLevelReply> {
        let request = request.into_inner();
        self.work(move |_| set_levels(&request.level, &request.daemon)).await
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Reply<MetricsReply> {
        self.work(|manager| Ok(MetricsReply { text: prometheus::text(manager) })).await
    }
}

fn own_daemon() -> Daemon {
    let resources = usage::resources();
    let pid = std::process::id() as i32;
    daemon(env!("CARGO_PKG_VERSION").to_owned(), pid, log::level(), &resources)
}

fn files_daemon(status: FsStatus) -> Daemon {
    daemon(status.version, status.pid, status.log_level, &status.resources.unwrap_or_default())
}

fn daemon(version: String, pid: i32, log_level: String, used: &Resources) -> Daemon {
    Daemon {
        version,
        pid,
        resident_bytes: used.resident_bytes,
        descriptors: used.descriptors,
        starts: used.starts,
        log_level,
    }
}

fn describe(manager: &Manager, event: Event) -> proto::Event {
    let record = manager.records().into_iter().find(|record| record.id == event.id);
    proto::Event {
        number: event.number,
        unix_ms: event.unix_ms,
        kind: event.kind.name().to_owned(),
        container_name: record.as_ref().map(containers::name).unwrap_or_default(),
        container_id: event.id,
        text: event.text,
    }
}

fn leftover(leftover: Leftover, dry_run: bool) -> proto::Leftover {
    let action = match (leftover.action, &leftover.failure) {
        (Action::Keep, _) => "kept",
        (Action::Remove, Some(_)) => "failed",
        (Action::Remove, None) if dry_run => "would-be-removed",
        (Action::Remove, None) => "removed",
    };
    let failure = leftover.failure.map(|why| format!("; it can't be removed: {why}"));
    proto::Leftover {
        kind: leftover.kind.name().to_owned(),
        container_id: leftover.id,
        path: leftover.path.display().to_string(),
        reason: leftover.reason + &failure.unwrap_or_default(),
        action: action.to_owned(),
    }
}

fn set_levels(level: &str, daemon: &str) -> Result<LogLevelReply, Status> {
    const DAEMONS: [&str; 2] = ["sysbox-mgr", "sysbox-fs"];
    if !daemon.is_empty() && !DAEMONS.contains(&daemon) {
        let message = format!("there is no daemon {daemon}; there are {}", DAEMONS.join(" and "));
        return Err(Status::invalid_argument(message));
    }
    let mut levels = BTreeMap::new();
    for name in DAEMONS.into_iter().filter(|name| daemon.is_empty() || daemon == *name) {
        let now = match name {
            "sysbox-mgr" => own_level(level),
            _ => files_level(level),
        };
        levels.insert(
            name.to_owned(),
            now.map_err(|e| Status::failed_precondition(format!("{e:#}")))?,
        );
    }
    Ok(LogLevelReply { levels })
}

fn own_level(level: &str) -> anyhow::Result<String> {
    if !level.is_empty() {
        log::set_level(level)?;
    }
    Ok(log::level())
}

fn files_level(level: &str) -> anyhow::Result<String> {
    let client = FsClient::connect()?;
    if !level.is_empty() {
        client.set_log_level(level)?;
    }
    Ok(client.status()?.log_level)
}
