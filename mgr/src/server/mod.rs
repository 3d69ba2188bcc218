//! The socket for the runtime: accepts, and serves each connection in a thread of its own.

mod connection;
mod peer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sysbox_ipc::Listener;

use crate::manager::Manager;
use crate::quick_moves::QuickMoves;

/// State that all connections share.
#[derive(Debug)]
struct Shared {
    /// Set when the daemon is about to end: no new registration is begun.
    stopping: AtomicBool,
    /// Registrations that are neither committed nor taken back.
    open: AtomicUsize,
    /// `start` follows `create`, and moves init.
    quick_moves: QuickMoves,
}

/// The running server.
#[derive(Debug)]
pub struct Server(Arc<Shared>);

impl Server {
    /// Starts to accept connections.
    pub fn start(listener: Listener, manager: Arc<Manager>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stopping: AtomicBool::default(),
            open: AtomicUsize::default(),
            quick_moves: QuickMoves::start(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("accept".into())
            .spawn(move || accept(&listener, &manager, &accepting))?;
        Ok(Self(shared))
    }

    /// Begins no more registrations and waits for those under way, at most for `patience`. Those that
    /// are not done then are taken back at the next start.
    pub fn stop(&self, patience: Duration) {
        self.0.stopping.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + patience;
        while self.0.open.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn accept(listener: &Listener, manager: &Arc<Manager>, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok(connection) => {
                let (manager, shared) = (Arc::clone(manager), Arc::clone(shared));
                let serve = move || connection::serve(&manager, &shared, connection);
                if let Err(e) = std::thread::Builder::new().name("call".into()).spawn(serve) {
                    tracing::error!("a call of the runtime is refused: {e}");
                }
            }
            // Out of descriptors or memory: others will give some back.
            Err(e) => {
                tracing::error!("accepting a call of the runtime: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}
