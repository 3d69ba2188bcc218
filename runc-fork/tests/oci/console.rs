//! Terminals and descriptors that are handed over.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::Case;
use crate::bundle::Bundle;
use crate::world::World;

pub const CASES: &[Case] = &[
    ("console::socket", socket),
    ("console::exec_socket_and_pidfd_socket", exec_sockets),
    ("console::foreground", foreground),
    ("console::combinations", combinations),
];

fn listener(path: &str) -> UnixListener {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).unwrap()
}

/// The descriptor that the runtime has sent.
fn receive(listener: &UnixListener) -> OwnedFd {
    let (connection, _) = listener.accept().unwrap();
    let mut buffer = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    recvmsg(&connection, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.expect("no descriptor in the message")
}

fn socket(world: &World) {
    let mut bundle = Bundle::new(world, "tty", "tty; stty size; stat -c %u $(tty)");
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.spec["process"]["consoleSize"] = json!({ "height": 31, "width": 97 });
    let path = bundle.path("s");
    let engine = listener(&path);
    bundle.make("create", &["--console-socket", &path]).ok();
    let mut terminal = std::fs::File::from(receive(&engine));
    bundle.call(&["start"], &[]).ok();
    let mut text = String::new();
    // The end of the last process is EIO.
    let _ = terminal.read_to_string(&mut text);
    assert_eq!(text.lines().collect::<Vec<_>>(), ["/dev/pts/0", "31 97", "0"]);
}

fn exec_sockets(world: &World) {
    let bundle = Bundle::sleeping(world, "exectty");
    let (console, pidfd) = (bundle.path("c"), bundle.path("p"));
    let (console_end, pidfd_end) = (listener(&console), listener(&pidfd));
    bundle.make("run", &["--detach", "--pidfd-socket", &pidfd]).ok();
    let is_pidfd = |fd: &OwnedFd| {
        let link = std::fs::read_link(sysbox_kernel::process::fd_path(fd)).unwrap();
        link.to_str().unwrap().contains("pidfd")
    };
    assert!(is_pidfd(&receive(&pidfd_end)));
    let options =
        ["exec", "--detach", "--tty", "--console-socket", &console, "--pidfd-socket", &pidfd];
    bundle.call(&options, &["sh", "-c", "read line; echo got $line"]).ok();
    let mut terminal = std::fs::File::from(receive(&console_end));
    assert!(is_pidfd(&receive(&pidfd_end)));
    terminal.write_all(b"words\n").unwrap();
    let mut text = String::new();
    let _ = terminal.read_to_string(&mut text);
    assert!(text.contains("got words"), "{text}");
}

fn foreground(world: &World) {
    let mut bundle = Bundle::new(world, "front", "test -t 0 && echo terminal; exit 3");
    bundle.spec["process"]["terminal"] = json!(true);
    let done = bundle.run();
    assert_eq!((done.code, done.out.trim_end()), (Some(3), "terminal"));
    let bundle = Bundle::sleeping(world, "front-exec");
    bundle.start();
    let done = bundle.call(&["exec", "--tty"], &["sh", "-c", "test -t 1 && echo yes; exit 4"]);
    assert_eq!((done.code, done.out.trim_end()), (Some(4), "yes"));
}

fn combinations(world: &World) {
    let mut bundle = Bundle::sleeping(world, "wrong");
    bundle.make("create", &["--console-socket", "/s"]).fails(1, "cannot use console socket");
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.make("create", &[]).fails(1, "cannot allocate tty if runc will detach");
}
