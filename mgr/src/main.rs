//! The `sysbox-mgr` binary: parses the command line and runs the daemon of the library.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    sysbox_mgr::run(sysbox_mgr::Options::parse())
}
