//! The metrics for Prometheus: one page over HTTP, for everybody who can reach the address. It holds
//! numbers and names of containers, and nothing can be changed by it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::prometheus;
use crate::manager::Manager;

/// How long a caller may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest head of a request, bytes.
const HEAD: usize = 16 * 1024;
/// A pause when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the page for ever.
pub async fn serve(listener: TcpListener, manager: Arc<Manager>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let manager = manager.clone();
                let service = service_fn(move |request| answer(request, manager.clone()));
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(HEAD);
                let connection = http.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    if let Err(e) = connection.await {
                        tracing::debug!("a connection for metrics ended: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("accepting a connection for metrics: {e}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    manager: Arc<Manager>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            match tokio::task::spawn_blocking(move || prometheus::text(&manager)).await {
                Ok(text) => (StatusCode::OK, text),
                Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
            }
        }
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "there is only /metrics\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "there is only GET /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(prometheus::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
