//! The runtime's own program, out of reach of those inside (CVE-2019-5736).
//!
//! A container can make the runtime that enters it execute itself, and then has the program as its
//! own `/proc/self/exe`. On a host it belongs to an id that no container has. Where the runtime is in
//! a container itself, its containers have the same ids as it (the kernel ID-maps nothing there), so
//! their root could write to the file. There the runtime runs from a copy in memory that nobody can
//! change.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use sysbox_kernel::ns::is_on_the_host;
use sysbox_kernel::process::fd_path;

/// Where that is needed, starts the program again from a sealed copy.
///
/// # Errors
/// The copy can't be made or executed.
pub fn run_from_copy() -> Result<()> {
    if is_on_the_host().context("look at the own user namespace")? {
        return Ok(());
    }
    let mut own = File::open("/proc/self/exe").context("open the runtime's own program")?;
    if fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)) {
        return Ok(());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = memfd_create("sysbox-runc", flags).context("make a file in memory")?;
    let mut copy = File::from(copy);
    io::copy(&mut own, &mut copy).context("copy the runtime's own program")?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, all).context("seal the copy of the runtime's own program")?;
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let error = Command::new(fd_path(&copy)).arg0(name).args(words).exec();
    Err(error).context("execute the copy of the runtime's own program")
}
