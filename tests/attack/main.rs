//! Attacks from inside of containers, with a real engine: what `docs/security.md` claims is tried here.
//!
//! The attempts are made by `sysbox-attacker` (tests/attacker), which is mounted into each container and
//! tells for every one what the kernel, or the broker, answered; `--nocapture` shows it all. A test fails
//! on the first thing that works and must not.

mod daemons;
mod host;
mod images;
mod mounts;
mod neighbours;
mod nested;
mod runtime;
mod tool;
