//! Daemons come and go; the files stay. Needs root.

mod support;

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use support::{Answer, Call, Cgroup, Place, container, is_root, wait};

#[test]
fn files_outlive_a_killed_daemon() {
    if is_root() {
        outlive(&Place::new(), "killed");
    }
}

/// Before Linux 6.9 requests are not sent again by the kernel but found in the daemon's journal.
#[test]
fn files_outlive_a_killed_daemon_on_an_older_kernel() {
    if is_root() {
        let mut place = Place::new();
        place.without = "fuse-resend";
        outlive(&place, "killed-older");
    }
}

fn outlive(place: &Place, name: &str) {
    let cgroup = Cgroup::new(name);
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("lasting", 3, &cgroup));
    let path = place.path(&dir).join("proc/meminfo");
    let mut early = fs::File::open(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();

    // Again and again, with readers at work all the time: nobody sees more than a pause.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut passes = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let text = fs::read_to_string(&path).unwrap();
                        assert!(text.starts_with("MemTotal:") && text.ends_with('\n'), "{text}");
                        passes += 1;
                    }
                    passes
                })
            })
            .collect();
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            daemon.child.kill().unwrap();
            daemon.child.wait().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            daemon = place.start();
        }
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 5));
    });

    // A file that was opened before, the mount and the inode numbers are what they were.
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("MemTotal:"));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    let Answer::Status(status) = daemon.call(Call::Status(Default::default())) else { panic!() };
    assert_eq!(status.containers, ["lasting"]);

    // A second daemon is refused and says who is there.
    let second = place.command().output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(error.contains(&format!("pid {}", daemon.child.id())), "{error}");

    // A planned end leaves the files to the next daemon, too.
    daemon.terminate();
    let reader = std::thread::spawn(move || fs::read_to_string(path).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    let daemon = place.start();
    assert!(reader.join().unwrap().starts_with("MemTotal:"));
    daemon.remove("lasting");
    daemon.terminate();
}

/// Where systemd runs, mounts are shared with their copies; those in containers are copies of this.
#[test]
fn the_mount_is_not_shared_where_others_are() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    assert!(place.shell("mount --make-rshared /").status().unwrap().success());
    let table = format!("/proc/{}/mountinfo", place.anchor.id());
    let line = || {
        let table = fs::read_to_string(&table).unwrap();
        let point = place.run_dir.path().join("fs");
        let line = table.lines().find(|line| line.contains(point.to_str().unwrap()));
        line.expect("the mount").to_owned()
    };
    let mut daemon = place.start();
    assert!(!line().contains("shared:"), "{}", line());
    // Nor after a daemon has taken over one that is.
    let cgroup = Cgroup::new("shared");
    daemon.add(container("c", 7, &cgroup));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    assert!(place.shell("mount --make-shared \"$1/fs\"").status().unwrap().success());
    assert!(line().contains("shared:"), "{}", line());
    let daemon = place.start();
    assert!(!line().contains("shared:"), "{}", line());
    daemon.remove("c");
    daemon.terminate();
}

#[test]
fn a_dead_mount_is_replaced() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("dead"));
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("c", 4, &cgroup));
    // Nobody keeps the device any more: the mount is dead.
    sysbox_fs::session::hold::release(place.run_dir.path());
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let path = place.path(&dir).join("proc/uptime");
    wait("the end of the mount", || fs::read_to_string(&path).is_err());
    let daemon = place.start();
    assert!(fs::read_to_string(&path).unwrap().contains(' '));
    daemon.remove("c");
    daemon.terminate();
}

/// Under systemd the device goes to its file descriptor store and comes back from there.
#[test]
fn the_service_manager_keeps_the_device() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("systemd"));
    let notify = place.run_dir.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = place.command();
    command.env("NOTIFY_SOCKET", &notify).env("FDSTORE", "4");
    let mut daemon = place.start_with(command);
    let (stored, device) = receive(&manager);
    assert!(stored.contains("FDSTORE=1") && stored.contains("FDPOLL=0"), "{stored}");
    let (stored_texts, texts) = receive(&manager);
    assert!(stored_texts.contains("FDNAME=texts-1"), "{stored_texts}");
    assert!(receive(&manager).0.contains("READY=1"));
    assert!(!place.run_dir.path().join("sysfs-hold.sock").exists());
    let (dir, _) = daemon.add(container("kept", 5, &cgroup));
    let path = place.path(&dir).join("proc/uptime");
    let mut begun = fs::File::open(&path).unwrap();
    begun.read_exact(&mut [0]).unwrap();
    let rest = |begun: &fs::File| {
        let mut rest = [0; 100];
        let length = begun.read_at(&mut rest, 1).unwrap();
        rest[..length].to_vec()
    };
    let before = rest(&begun);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();

    // As systemd does it: descriptors 3 and 4, their names, and the pid that they are meant for.
    let name = stored.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap();
    let mut command = place.shell(
        "exec 3<&0 4<&1 </dev/null >&2; export LISTEN_PID=$$; exec \"$0\" --run-dir \"$1\" --log-level warn",
    );
    command.stdin(device.unwrap()).stdout(texts.unwrap());
    command.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", format!("{name}:texts-1"));
    command.env("NOTIFY_SOCKET", &notify).env("FDSTORE", "4");
    let daemon = place.start_with(command);
    assert!(receive(&manager).0.contains("READY=1"));
    assert_eq!(rest(&begun), before);
    assert!(fs::read_to_string(&path).unwrap().contains(' '));
    daemon.remove("kept");
    daemon.terminate();
    (0..2).for_each(|_| assert!(receive(&manager).0.contains("FDSTOREREMOVE=1")));
}

/// A message to the service manager, and the descriptor that came with it.
fn receive(socket: &UnixDatagram) -> (String, Option<OwnedFd>) {
    let mut text = [0; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut text)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.flatten().next();
    (String::from_utf8_lossy(&text[..received.bytes]).into_owned(), descriptor)
}

#[test]
fn a_holder_that_dies_is_replaced() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("holder"));
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("c", 6, &cgroup));
    let path = place.path(&dir).join("proc/loadavg");
    let socket = place.run_dir.path().join("sysfs-hold.sock");
    // Not the inode number: the next file may get the same.
    let born = || fs::metadata(&socket).map(|m| (m.ctime(), m.ctime_nsec())).ok();
    let first = born();
    sysbox_fs::session::hold::release(place.run_dir.path());
    let replaced = || born().is_some() && born() != first;
    wait("another holder", || replaced() && support::connects(&socket));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let daemon = place.start();
    assert!(fs::read_to_string(&path).unwrap().contains('/'));
    daemon.remove("c");
    daemon.terminate();
}
