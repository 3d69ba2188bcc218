//! What listeners cost that nobody asks anything: a thousand of them, each of a process that sleeps.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::time::{ClockId, clock_gettime};
use sysbox_kernel::process::{CloneFlags, Fork, clone_process, exit_now};
use sysbox_kernel::{ns, seccomp};
use sysbox_mgr::broker::{Container, Features, Made};

use super::container::{Host, receive, send};

/// First argument of the process that makes the sleepers.
pub const SLEEPERS: &str = "--sleepers";

const LISTENERS: usize = 1000;
const TIME: Duration = Duration::from_secs(5);

/// Prints the processor time of this process, in which the broker is, while all sleep.
pub fn measure(host: &Host, features: Features) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("setrlimit");
    let broker = host.broker(features);
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut sleepers = Command::new("/proc/self/exe")
        .arg(SLEEPERS)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("starting the sleepers");
    let userns: OwnedFd = std::fs::File::open("/proc/self/ns/user").expect("open").into();
    let (id, emulated_dir) = ("idle".to_owned(), "/".into());
    let container = Arc::new(Container {
        id,
        userns,
        emulated_dir,
        emulated_files: Vec::new(),
        made: Made::default(),
    });
    for number in 0..LISTENERS {
        let mut received = receive(&ours).into_iter();
        let (pidfd, listener) = received.next().zip(received.next()).expect("a sleeper");
        // Far from the numbers of the cases.
        let number = 1_000_000 + number as u64;
        broker.attach(number, container.clone(), listener, pidfd).expect("attaching");
    }
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let (before, start) = (used(), Instant::now());
    std::thread::sleep(TIME);
    let used = used() - before;
    println!(
        "broker: {LISTENERS} idle listeners: {used:?} of processor time in {:?}",
        start.elapsed()
    );
    assert!(used < TIME / 1000, "idle listeners cost processor time");
    sleepers.kill().expect("kill");
    sleepers.wait().expect("wait");
}

/// The process that makes them. They end with it.
pub fn sleepers() -> ExitCode {
    let manager = rustix::io::dup(rustix::stdio::stdin()).expect("socket");
    let manager = UnixStream::from(manager);
    let request = sysbox_seccomp::Request { profile: None, system_container: true, traps: true };
    let (program, _) = sysbox_seccomp::program(&request, None).expect("seccomp program");
    for _ in 0..LISTENERS {
        if let Fork::Child = clone_process(CloneFlags::NONE).expect("clone") {
            set_parent_process_death_signal(Some(Signal::KILL)).expect("death signal");
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            let pidfd = ns::pidfd(pid).expect("pidfd");
            let listener = seccomp::install(program.as_bytes(), true, 0).expect("seccomp");
            send(&manager, &[pidfd, listener.expect("a listener")]);
            std::thread::sleep(Duration::from_secs(600));
            exit_now(0);
        }
    }
    std::thread::sleep(Duration::from_secs(600));
    ExitCode::SUCCESS
}
