//! `create`: everything but the start of the container's program.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::Global;
use crate::run::console::Terminal;
use crate::run::create::{self, Request};

/// create a container
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a pidfd of the container's init
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// accepted for compatibility: the root is always changed by pivot_root
    #[arg(long)]
    pub no_pivot: bool,
    /// do not create a new session keyring for the container
    #[arg(long)]
    pub no_new_keyring: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// container id
    pub id: String,
}

impl CreateArgs {
    /// What `create` and `run` have in common.
    pub(super) fn request(&self, global: &Global, terminal: Terminal) -> Request {
        Request {
            root: global.root.clone(),
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            terminal,
            pidfd_socket: self.pidfd_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
            listen_fds: super::listen_fds(),
            new_keyring: !self.no_new_keyring,
            systemd_cgroup: global.systemd_cgroup,
        }
    }
}

/// Runs the command.
pub fn run(global: &Global, args: &CreateArgs) -> Result<()> {
    let terminal = Terminal::Detached(args.console_socket.clone());
    create::create(&args.request(global, terminal)).map(drop)
}
