//! Who may call: root of the host, by the credentials that the kernel has of the socket's other end.
//!
//! The socket's mode says so, too; but a mode is quickly changed, and a socket quickly mounted
//! somewhere. Root of a container is another user here.

use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

/// Refuses calls of others than root.
pub fn check(request: Request<()>) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<UdsConnectInfo>();
    match info.and_then(|info| info.peer_cred).map(|peer| peer.uid()) {
        Some(0) => Ok(request),
        Some(uid) => Err(Status::permission_denied(format!(
            "user {uid} may not ask sysbox-mgr, only root of the host may; use sudo"
        ))),
        None => Err(Status::permission_denied(
            "sysbox-mgr cannot see who is asking; only root of the host may",
        )),
    }
}
