//! Other containers, and the daemons: their files, processes, keys, IPC objects and sockets.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use crate::report::{answer, breach, refused};
use crate::sys::{self, Entry, call, text};

/// The keys by which the victim's objects are found, and the attacker looks for them.
const IPC_KEY: u64 = 0x5953_4258;
const KEY_NAME: &str = "sysbox-secret";
const SOCKET: &str = "sysbox-secret";

/// Plays the victim: has one of each, and waits.
pub fn victim(secret: &str) -> ! {
    fs::write("/root/secret", secret).expect("writing the secret");
    let create = 0o1000 | 0o666;
    call(Entry::Native, sys::SHMGET, &[IPC_KEY, 4096, create]).expect("shared memory");
    call(Entry::Native, sys::MSGGET, &[IPC_KEY, create]).expect("a message queue");
    // The user keyring, which every process of the same user shares.
    let user_keyring = -4_i64;
    let key = add_key(user_keyring, secret);
    let address = SocketAddr::from_abstract_name(SOCKET).expect("an address");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a socket");
    println!("ready, key {key}");
    loop {
        std::thread::park();
    }
}

fn add_key(keyring: i64, secret: &str) -> i64 {
    let (kind, name) = (c"user", std::ffi::CString::new(KEY_NAME).expect("text"));
    // SAFETY: strings and a buffer that outlive the call, which only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            name.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            keyring,
        )
    }
}

/// Looks for all that the victim has. `key` and `pid` are the victim's numbers as the host knows them.
pub fn attack(secret: &str, key: &str, pid: &str) {
    refused("shmget", call(Entry::Native, sys::SHMGET, &[IPC_KEY, 0, 0]));
    refused("msgget", call(Entry::Native, sys::MSGGET, &[IPC_KEY, 0]));
    // Identifiers are guessable: try the first few.
    for id in 0..8 {
        // SAFETY: the kernel chooses the place; nothing else is touched.
        let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        let result = if at as isize == -1 { Err(sys::last()) } else { Ok(()) };
        refused(&format!("shmat {id}"), result);
    }
    keys(secret, key.parse().unwrap_or(0));
    let address = SocketAddr::from_abstract_name(SOCKET).expect("an address");
    refused("connect to the abstract socket", UnixStream::connect_addr(&address));
    for signal in [0, 19] {
        let args = [pid.parse().unwrap_or(0), signal];
        refused(&format!("kill the host's process {pid}"), call(Entry::Native, sys::KILL, &args));
    }
    refused("its directory in /proc", fs::read_dir(format!("/proc/{pid}/root/root")));
    processes();
    files(secret);
    sockets();
}

fn keys(secret: &str, key: u64) {
    const READ: u64 = 11;
    const SEARCH: u64 = 10;
    const LINK: u64 = 8;
    let (kind, name) = (text(Some("user")), text(Some(KEY_NAME)));
    for keyring in [-1_i64, -2, -3, -4, -5] {
        let args = [SEARCH, keyring.cast_unsigned(), kind, name, 0];
        refused(&format!("search keyring {keyring}"), call(Entry::Native, sys::KEYCTL, &args));
    }
    let mut found = [0_u8; 64];
    let args = [READ, key, found.as_mut_ptr() as u64, found.len() as u64];
    refused("read the key by its number", call(Entry::Native, sys::KEYCTL, &args));
    let args = [LINK, key, (-2_i64).cast_unsigned()];
    refused("link the key", call(Entry::Native, sys::KEYCTL, &args));
    let listed = fs::read_to_string("/proc/keys").unwrap_or_default();
    if listed.contains(KEY_NAME) || found.starts_with(secret.as_bytes()) {
        breach("the key of another container is visible");
    }
}

/// Every process that is visible must be one of the container's.
fn processes() {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.parse::<u32>().is_err() {
            continue;
        }
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if ["sysbox-mgr", "sysbox-fs", "dockerd", "containerd-shim"].contains(&comm.trim()) {
            breach(&format!("process {comm} of the host is visible"));
        }
        answer(&format!("visible process {name}"), comm.trim());
    }
}

/// By handles, which lead to any file of a file system, and by the links of processes.
fn files(secret: &str) {
    for root in ["/", "/etc/hosts", "/etc/hostname"] {
        let opened = fs::File::open(root).expect("opening");
        use std::os::fd::AsRawFd;
        // struct file_handle: size, type, inode and generation. The root directory of an ext4.
        for inode in [2_u32, 11, 12] {
            let mut handle = [8_u32, 1, inode, 0];
            // SAFETY: the kernel reads the handle, which is as long as it says.
            let fd = unsafe {
                libc::syscall(
                    libc::SYS_open_by_handle_at,
                    opened.as_raw_fd(),
                    handle.as_mut_ptr(),
                    libc::O_RDONLY,
                )
            };
            let result = if fd < 0 { Err(sys::last()) } else { Ok(fd) };
            refused(&format!("open_by_handle_at {root} {inode}"), result);
        }
    }
    for way in ["/proc/1/root/../../root/secret", "/../../root/secret", "/proc/self/root/../secret"]
    {
        let seen = fs::read_to_string(way);
        if seen.as_ref().is_ok_and(|text| text.contains(secret)) {
            breach(&format!("the secret is visible at {way}"));
        }
        answer(way, seen.map(|text| text.len()).map_err(|error| error.kind()));
    }
}

/// The sockets of daemons and engine.
fn sockets() {
    for name in ["sysmgr.sock", "sysfs.sock", "docker.sock", "containerd.sock"] {
        for dir in ["/run/sysbox", "/run", "/var/run", "/run/containerd", "/tmp"] {
            let path = format!("{dir}/{name}");
            refused(&format!("connect to {path}"), UnixStream::connect(Path::new(&path)));
        }
    }
    let listed = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for line in listed.lines().filter(|line| line.contains("sysbox") || line.contains("docker")) {
        if !line.contains(SOCKET) {
            breach(&format!("a socket of the host is visible: {line}"));
        }
    }
    answer("lines of /proc/net/unix", listed.lines().count());
}
