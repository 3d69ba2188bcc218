//! The API for people and tools: gRPC over a unix socket (`proto/api.proto`), and Prometheus metrics
//! over HTTP if an address for them is given.
//!
//! Both are served by one thread, which makes itself a runtime for them when the first caller comes:
//! a manager that nobody asks pays for a waiting thread only. What a call does may take a moment (it
//! reads files of engines and cgroups), so it is done by threads of the runtime that end when they
//! have nothing to do.
//!
//! | module | job |
//! |---|---|
//! | `service` | the calls |
//! | `peer` | who may make them: root of the host |
//! | `containers` | what is known of a container: record, runtime's state, cgroup, engine |
//! | `names` | how an engine calls a container |
//! | `prometheus` | all numbers as text |
//! | `http` | that text for Prometheus |

mod containers;
mod http;
mod names;
mod peer;
mod prometheus;
mod service;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use sysbox_ipc::paths;
use tokio_stream::wrappers::UnixListenerStream;

use crate::error::{Doing as _, Error, Result};
use crate::manager::Manager;
use proto::sysbox_server::SysboxServer;
use service::Service;

/// The messages, the service and its client, generated from `proto/api.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("sysbox.api.v1");
}

/// How long a thread that did a call waits for another one.
const IDLE: Duration = Duration::from_secs(2);

/// Starts to serve the API, and the metrics at this address.
///
/// # Errors
/// The socket or the address can't be had: says which, and what to do.
pub fn start(manager: &Arc<Manager>, metrics: Option<SocketAddr>) -> Result<()> {
    let path = paths::api_socket();
    let api = bind(&path).doing(|| format!("listening on {}", path.display()))?;
    let metrics = metrics.map(listen).transpose()?;
    let manager = manager.clone();
    let serve = move || {
        // Until somebody comes there is no runtime.
        if let Err(e) = wait(&api, metrics.as_ref()).and_then(|()| run(manager, api, metrics)) {
            tracing::error!("the API is not served any more: {e}");
        }
    };
    std::thread::Builder::new()
        .name("api".into())
        .spawn(serve)
        .map(drop)
        .doing(|| "starting the thread of the API".to_owned())
}

/// A new socket for root only, in the place of one that was left.
fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before it has a name: it is never there for others.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket.into())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|e| {
        Error::new(format!("listening on {address} for Prometheus: {e}"))
            .remedy("give another --metrics")
    })
}

fn wait(api: &UnixListener, metrics: Option<&TcpListener>) -> io::Result<()> {
    let listeners = std::iter::once(api.as_fd()).chain(metrics.map(AsFd::as_fd));
    let mut ready: Vec<_> =
        listeners.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
    Ok(())
}

fn run(manager: Arc<Manager>, api: UnixListener, metrics: Option<TcpListener>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_name("api-call")
        .thread_keep_alive(IDLE)
        .build()?;
    runtime.block_on(async {
        if let Some(listener) = metrics {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, manager.clone()));
        }
        let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(api)?);
        let service = SysboxServer::with_interceptor(Service::new(manager), peer::check);
        let server = tonic::transport::Server::builder();
        server.serve_with_incoming(service, incoming).await.map_err(io::Error::other)
    })
}
