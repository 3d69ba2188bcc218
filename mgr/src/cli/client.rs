//! The connection to the manager's API: one call after the other.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use sysbox_ipc::paths;
use sysbox_mgr::api::proto::{
    Container, Event, EventsRequest, GcRequest, Leftover, ListRequest, LogLevelRequest,
    MetricsRequest, VersionReply, VersionRequest, Volume, VolumesRequest,
    sysbox_client::SysboxClient,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// How long a manager that is being restarted is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long its socket may be missing meanwhile.
const STARTING: Duration = Duration::from_secs(1);
/// How long a call may take; counting the space of volumes takes long.
const CALL: Duration = Duration::from_secs(600);

/// See the module documentation.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    api: SysboxClient<Channel>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// The manager does not run, or this user may not ask it: says what to do.
    pub fn connect() -> anyhow::Result<Self> {
        let path = paths::api_socket();
        let shown = path.display();
        let start = Instant::now();
        // First without the machinery, which would hide why it fails.
        while let Err(e) = UnixStream::connect(&path) {
            match e.kind() {
                ErrorKind::ConnectionRefused if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                // It is just about to make its socket anew.
                ErrorKind::NotFound
                    if start.elapsed() < STARTING
                        && paths::run_dir().join("sysmgr.pid").exists() =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ErrorKind::PermissionDenied => {
                    bail!("only root may ask sysbox-mgr ({shown}: {e}); use sudo")
                }
                _ => bail!(
                    "sysbox-mgr is not running (no one listens on {shown}: {e}); start it with \
                     `systemctl start sysbox-mgr` or run `sysbox-mgr` as root"
                ),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = path.to_str().context("the path of the run directory is no text")?;
        let endpoint = Endpoint::try_from(format!("unix:{path}"))?.timeout(CALL);
        let channel = runtime.block_on(endpoint.connect());
        let channel = channel.with_context(|| format!("connecting to {path}"))?;
        Ok(Self { runtime, api: SysboxClient::new(channel) })
    }

    /// The containers whose id begins so or that have this name; all if it is empty.
    pub fn list(&self, which: &str) -> anyhow::Result<Vec<Container>> {
        let request = ListRequest { which: which.to_owned() };
        let reply = self.runtime.block_on(self.api.clone().list(request));
        Ok(reply.map_err(refused)?.into_inner().containers)
    }

    /// The daemons.
    pub fn version(&self) -> anyhow::Result<VersionReply> {
        let reply = self.runtime.block_on(self.api.clone().version(VersionRequest {}));
        Ok(reply.map_err(refused)?.into_inner())
    }

    /// The volumes.
    pub fn volumes(&self, sizes: bool) -> anyhow::Result<Vec<Volume>> {
        let reply = self.runtime.block_on(self.api.clone().volumes(VolumesRequest { sizes }));
        Ok(reply.map_err(refused)?.into_inner().volumes)
    }

    /// What is left over; removes it.
    pub fn gc(&self, dry_run: bool) -> anyhow::Result<Vec<Leftover>> {
        let reply = self.runtime.block_on(self.api.clone().gc(GcRequest { dry_run }));
        Ok(reply.map_err(refused)?.into_inner().leftovers)
    }

    /// Reads the levels of the logs, or changes them.
    pub fn log_level(&self, level: &str, daemon: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let request = LogLevelRequest { level: level.to_owned(), daemon: daemon.to_owned() };
        let reply = self.runtime.block_on(self.api.clone().log_level(request));
        Ok(reply.map_err(refused)?.into_inner().levels)
    }

    /// All numbers.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let reply = self.runtime.block_on(self.api.clone().metrics(MetricsRequest {}));
        Ok(reply.map_err(refused)?.into_inner().text)
    }

    /// Calls `each` with every event, until the stream ends or `each` fails.
    pub fn events(
        &self,
        request: EventsRequest,
        mut each: impl FnMut(Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        // It goes on for as long as the user likes.
        let mut request = Request::new(request);
        request.set_timeout(Duration::from_secs(365 * 24 * 3600));
        let stream = self.runtime.block_on(self.api.clone().events(request));
        let mut stream: Streaming<Event> = stream.map_err(refused)?.into_inner();
        while let Some(event) = self.runtime.block_on(stream.message()).map_err(refused)? {
            each(event)?;
        }
        Ok(())
    }
}

fn refused(status: Status) -> anyhow::Error {
    anyhow!("sysbox-mgr: {}", status.message())
}
