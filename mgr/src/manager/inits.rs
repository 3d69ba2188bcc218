//! Notices the death of containers' inits: one thread, one epoll set of pidfds.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::sync::lock;

/// Key of a registration to the pidfd of its init.
type Watched = Mutex<HashMap<u32, OwnedFd>>;

/// The inits that are watched.
#[derive(Debug)]
pub struct InitWatch {
    epoll: Arc<OwnedFd>,
    watched: Arc<Watched>,
}

impl InitWatch {
    /// Starts the thread; `died` is called with the key of the registration.
    pub fn start(died: impl Fn(u32) + Send + 'static) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        let watched = Arc::new(Watched::default());
        let (e, w) = (Arc::clone(&epoll), Arc::clone(&watched));
        std::thread::Builder::new().name("inits".into()).spawn(move || run(&e, &w, died))?;
        Ok(Self { epoll, watched })
    }

    /// Watches the init of a registration. One that is dead already is reported at once.
    pub fn watch(&self, key: u32, pidfd: OwnedFd) -> io::Result<()> {
        let mut watched = lock(&self.watched);
        epoll::add(&*self.epoll, &pidfd, EventData::new_u64(key.into()), EventFlags::IN)?;
        watched.insert(key, pidfd);
        Ok(())
    }

    /// Ends the watch.
    pub fn forget(&self, key: u32) {
        // Taken out of the set by hand: whoever else holds the pidfd would keep it there.
        if let Some(pidfd) = lock(&self.watched).remove(&key) {
            let _ = epoll::delete(&*self.epoll, &pidfd);
        }
    }
}

fn run(epoll: &OwnedFd, watched: &Watched, died: impl Fn(u32)) {
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::error!("the death of containers is no longer noticed: {e}");
                return;
            }
        }
        for &Event { data, .. } in &events {
            // A key of 32 bits was put in.
            let key = data.u64() as u32;
            if let Some(pidfd) = lock(watched).remove(&key) {
                let _ = epoll::delete(epoll, &pidfd);
                died(key);
            }
        }
    }
}
