//! Three processes make a case: the runner, which is the manager; a builder with one thread, which
//! is the runtime; and the container's init, forked from it, which runs the case.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Signal, chdir, pivot_root, set_parent_process_death_signal};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use sysbox_kernel::notify::Journal;
use sysbox_kernel::{ns, process, seccomp};
use sysbox_mgr::broker::{Broker, Container, Features, Made};

use super::cases::Case;
use super::{BUILD, layout};

/// No case takes this long.
const LIMIT: Duration = Duration::from_secs(60);

/// The manager's side.
pub struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        layout::private_mounts();
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["emulated", "root"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        layout::emulated_files(&dir.path().join("emulated"));
        Self { dir }
    }

    pub fn broker(&self, features: Features) -> Broker {
        let journal = Journal::new().expect("a journal");
        Broker::start_with(features, journal, |_| ()).expect("starting the broker")
    }

    /// Runs a case in a container of its own.
    pub fn run(&self, case: &Case, broker: &Broker) -> bool {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let mut builder = Command::new("/proc/self/exe")
            .args([BUILD, case.name])
            .current_dir(self.dir.path())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("starting the builder");
        let open_before = open_descriptors();
        self.serve(&ours, case, broker);
        let end = Instant::now() + LIMIT;
        let ok = loop {
            match builder.try_wait().expect("waiting") {
                Some(status) => break status.success(),
                None if Instant::now() > end => {
                    println!("hangs");
                    let _ = builder.kill();
                    break false;
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        ok && is_clean(open_before)
    }

    fn serve(&self, socket: &UnixStream, case: &Case, broker: &Broker) {
        let mut received = receive(socket);
        if received.len() < 2 {
            return;
        }
        let (pidfd, userns) = (received.remove(0), received.remove(0));
        if let Some(listener) = received.pop() {
            static NUMBER: AtomicU64 = AtomicU64::new(1);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let container = Container {
                id: case.name.to_owned(),
                userns,
                emulated_dir: self.dir.path().join("emulated"),
                emulated_files: layout::FILES.map(|(name, _)| name.to_owned()).to_vec(),
                made: case.most_mounts.map_or_else(Made::default, Made::at_most),
            };
            let attached = broker.attach(number, Arc::new(container), listener, pidfd);
            attached.expect("attaching the listener");
        }
        let mut socket = socket;
        socket.write_all(b"g").expect("telling the container to go on");
    }
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

/// Whether the broker gives up what it held for a container that is gone. (The listener is counted
/// out: it is closed after the container's end, not at it.)
fn is_clean(before: usize) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while open_descriptors() > before {
        if Instant::now() > end {
            println!("{} descriptors are left, {before} before", open_descriptors());
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The builder: makes namespaces and mounts, and waits for the case to end.
pub fn build(case: &Case) -> ExitCode {
    let dir = std::env::current_dir().expect("a directory");
    layout::private_mounts();
    let (mut ours, theirs) = UnixStream::pair().expect("sockets");
    let flags = process::CloneFlags::NEWUSER
        .with(process::CloneFlags::NEWPID)
        .with(process::CloneFlags::NEWNET)
        .with(process::CloneFlags::NEWIPC)
        .with(process::CloneFlags::NEWUTS);
    match process::clone_process(flags).expect("clone") {
        process::Fork::Child => {
            drop(ours);
            let ended = catch_unwind(|| init(case, theirs, dir.join("root")));
            process::exit_now(i32::from(ended.is_err()));
        }
        process::Fork::Parent { pid, pidfd } => {
            for map in ["uid_map", "gid_map"] {
                let line = format!("0 {} {}", layout::BASE, layout::IDS);
                fs::write(format!("/proc/{pid}/{map}"), line).expect("mapping ids");
            }
            layout::root(&dir.join("root"), &dir.join("emulated"), pid);
            let root = dir.join("root");
            let _device = case.hangs.then(|| layout::hanging_directory(&root));
            ours.write_all(b"m").expect("telling the container to go on");
            let code = process::wait_pidfd(&pidfd).expect("waiting");
            ExitCode::from(u8::try_from(code).unwrap_or(255))
        }
    }
}

/// Process 1 of the container.
fn init(case: &Case, mut builder: UnixStream, root: PathBuf) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("death signal");
    builder.read_exact(&mut [0]).expect("mounts");
    become_root();
    // The copy that locks everything.
    ns::unshare(ns::UnshareFlags::NEWNS).expect("unshare");
    mount_bind_recursive(&root, &root).expect("bind");
    chdir(&root).expect("chdir");
    pivot_root(".", "old").expect("pivot_root");
    chdir("/").expect("chdir");
    unmount("/old", UnmountFlags::DETACH).expect("detaching the old root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .expect("private mounts");

    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let mut fds = vec![
        ns::pidfd(pid).expect("pidfd"),
        fs::File::open("/proc/self/ns/user").expect("user namespace").into(),
    ];
    if case.with_listener {
        let request =
            sysbox_seccomp::Request { profile: None, system_container: true, traps: true };
        let (program, _) = sysbox_seccomp::program(&request, None).expect("seccomp program");
        let listener = seccomp::install(program.as_bytes(), true, 0).expect("seccomp");
        fds.extend(listener);
    }
    // Standard input is the socket to the runner.
    let manager = rustix::io::dup(rustix::stdio::stdin()).expect("socket");
    let mut manager = UnixStream::from(manager);
    send(&manager, &fds);
    drop(fds);
    manager.read_exact(&mut [0]).expect("the manager");
    (case.run)();
}

/// User and group 0 of the calling process's user namespace.
pub fn become_root() {
    // Not allowed in a user namespace that an ordinary user made.
    let _ = set_thread_groups(&[]);
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    set_thread_res_gid(gid, gid, gid).expect("setgid");
    set_thread_res_uid(uid, uid, uid).expect("setuid");
    // Files of this process in /proc belong to root only while it is "dumpable".
    let on = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(on).expect("dumpable");
}

pub fn send(socket: &UnixStream, fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"f")], &mut control, SendFlags::empty()).expect("sendmsg");
}

pub fn receive(socket: &UnixStream) -> Vec<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut into = [IoSliceMut::new(&mut byte)];
    recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).expect("recvmsg");
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    rights.flatten().collect()
}
