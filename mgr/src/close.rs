//! Closing what takes long to close.
//!
//! With the last descriptor of an overlay goes its superblock, and before that the kernel writes out all of
//! the file system that its upper directory is on, whoever wrote there: tens of milliseconds where little
//! is dirty, seconds where much is. Nobody needs to wait for it.

/// Drops `value` in a thread of its own; here and now if there can be none.
pub fn later(value: impl Send + 'static) {
    // Not one thread for all: a disk that hangs must not keep the root of others in use.
    let thread = std::thread::Builder::new().name("close".into());
    if let Err(error) = thread.spawn(move || drop(value)) {
        // The closure, and the value with it, was dropped.
        tracing::debug!(%error, "no thread to close the root of a container in");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.recv().unwrap();
        }
    }

    #[test]
    fn nobody_waits() {
        let (go_on, waits) = channel();
        super::later(Slow(waits));
        // Would not be reached, and would fail were it dropped without waiting.
        go_on.send(()).unwrap();
    }
}
