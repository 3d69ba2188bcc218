//! What container root does with what the broker has mounted: remounts, umounts, binds.

use std::fs;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::chdir;
use rustix::thread::CapabilitySet;

use super::cases::{Case, assert_proc, in_child, mounts_at, read, try_mount, umount, without};

pub const CASES: [Case; 7] = [
    Case::new("a_remount_includes_the_files", remounts).on_all_kernels(),
    Case::new("a_remount_loosens_nothing", remounts_of_locked),
    Case::new("umount_while_busy", busy).on_all_kernels(),
    Case::new("umount_of_files_that_were_to_expire", expiring).on_all_kernels(),
    Case::new("umount_of_a_single_file", single_file),
    Case::new("binds_of_what_was_mounted", binds),
    Case::new("a_huge_mount_table", huge_table).on_all_kernels(),
];

const REMOUNT: u32 = 0x20;
const BIND: u32 = 0x1000;

/// Whether a file can be opened for writing.
fn writable(file: &str) -> Result<(), Option<i32>> {
    let opened = fs::OpenOptions::new().write(true).open(file);
    opened.map(drop).map_err(|error| error.raw_os_error())
}

/// What inner engines do for `readonlyPaths`.
fn remounts() {
    let read_only = Err(Some(Errno::ROFS.raw_os_error()));
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_eq!(mount_bind_recursive("/m/sys", "/m/sys"), Ok(()));
    assert_eq!(try_mount("", "/m/sys", REMOUNT | BIND | 1, ""), Ok(()));
    assert_eq!(writable("/m/sys/kernel/msgmax"), read_only);
    assert_eq!(writable("/m/sys/kernel/panic"), read_only);
    assert_eq!(writable("/m/uptime"), Ok(()), "beside it");
    let dir = fs::File::open("/m/sys").expect("open");
    let link = format!("/proc/self/fd/{}", dir.as_raw_fd());
    assert_eq!(try_mount("", link, REMOUNT | BIND, ""), Ok(()));
    drop(dir);
    assert_eq!(writable("/m/sys/kernel/msgmax"), Ok(()));
    assert_eq!(writable("/m/sys/kernel/panic"), Ok(()));
    in_child(|| {
        without(CapabilitySet::SYS_ADMIN);
        let refused = try_mount("", "/m/sys", REMOUNT | BIND | 1, "");
        assert_eq!(refused, Err(Errno::PERM));
        assert_eq!(writable("/m/sys/kernel/panic"), Ok(()), "as it was");
    });
    assert_eq!(unmount("/m/sys", UnmountFlags::DETACH), Ok(()));
    // The file system, too, and with it the mount.
    assert_eq!(try_mount("", "/m", REMOUNT | 1, ""), Ok(()));
    assert_eq!(writable("/m/uptime"), read_only);
    assert_eq!(umount("/m"), Ok(()));
}

/// What the container started with, or what was copied into a nested user namespace.
fn remounts_of_locked() {
    let read_only = Err(Some(Errno::ROFS.raw_os_error()));
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_eq!(mount_bind_recursive("/m/sys", "/m/sys"), Ok(()));
    assert_eq!(try_mount("", "/m/sys", REMOUNT | BIND | 1, ""), Ok(()));
    in_child(move || {
        sysbox_kernel::ns::unshare(
            sysbox_kernel::ns::UnshareFlags::NEWUSER | sysbox_kernel::ns::UnshareFlags::NEWNS,
        )
        .expect("unshare");
        assert_eq!(try_mount("", "/m/sys", REMOUNT | BIND, ""), Err(Errno::PERM));
        assert_eq!(writable("/m/sys/kernel/panic"), read_only);
    });
    assert_eq!(unmount("/m", UnmountFlags::DETACH), Ok(()));
}

fn busy() {
    assert_eq!(try_mount("proc", "/m", 1, ""), Ok(()));
    chdir("/m/sys").expect("chdir");
    assert_eq!(umount("/m"), Err(Errno::BUSY));
    chdir("/").expect("chdir");
    assert_eq!(mounts_at("/m"), 4, "the files are back");
    assert_proc("/m");
    let writable = fs::OpenOptions::new().write(true).open("/m/uptime");
    assert!(writable.is_err(), "still read-only");
    let open = fs::File::open("/m/sys/kernel/panic").expect("open");
    assert_eq!(umount("/m"), Err(Errno::BUSY));
    assert_eq!(mounts_at("/m"), 4);
    drop(open);
    // Somebody's own mount on it.
    assert_eq!(try_mount("tmpfs", "/m/tty", 0, ""), Ok(()));
    assert_eq!(umount("/m"), Err(Errno::BUSY));
    assert_eq!(mounts_at("/m"), 5);
    assert_eq!(umount("/m/tty"), Ok(()));
    assert_eq!(umount("/m"), Ok(()));
}

fn single_file() {
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_eq!(umount("/m/uptime"), Err(Errno::INVAL));
    assert_eq!(mount_bind("/m/uptime", "/m/uptime"), Ok(()), "onto itself");
    assert_eq!(umount("/m/uptime"), Ok(()), "that one is the caller's");
    fs::write("/tmp/f", "").expect("file");
    assert_eq!(mount_bind("/m/uptime", "/tmp/f"), Ok(()));
    assert_eq!(umount("/tmp/f"), Ok(()));
    assert_eq!(mount_bind("/m/uptime", "/m/uptime"), Ok(()), "once more");
    assert_eq!(umount("/m"), Ok(()), "and it goes with the rest");
}

fn binds() {
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_eq!(mount_bind_recursive("/m", "/m2"), Ok(()));
    assert_proc("/m2");
    assert_eq!(umount("/m2"), Ok(()));
    assert_eq!(rustix::mount::mount_move("/m", "/m2"), Ok(()));
    assert_proc("/m2");
    assert_eq!(umount("/m2"), Ok(()));
    // On a shared mount, where each mount shows up at all peers.
    assert_eq!(mount_bind("/m", "/m"), Ok(()));
    assert_eq!(mount_change("/m", MountPropagationFlags::SHARED), Ok(()));
    fs::create_dir("/m/p").expect("mkdir");
    assert_eq!(mount_bind("/m", "/m2"), Ok(()));
    assert_eq!(try_mount("proc", "/m/p", 0, ""), Ok(()));
    assert_proc("/m/p");
    assert_proc("/m2/p");
    assert_eq!(umount("/m2/p"), Ok(()));
    assert_eq!((mounts_at("/m/p"), mounts_at("/m2/p")), (0, 0));
}

/// A question that was asked before must not be taken for the one that takes a file off.
fn expiring() {
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    let open = fs::File::open("/m/sys/kernel/panic").expect("open");
    for _ in 0..3 {
        assert_eq!(unmount("/m/uptime", UnmountFlags::EXPIRE), Err(Errno::AGAIN));
        assert_eq!(umount("/m"), Err(Errno::BUSY));
        assert_eq!(mounts_at("/m"), 4);
        assert_proc("/m");
    }
    drop(open);
    assert_eq!(umount("/m"), Ok(()));
}

/// More text than the broker reads: nothing comes of it but the kernel's own answer.
fn huge_table() {
    assert_eq!(try_mount("tmpfs", "/m2", 0, ""), Ok(()));
    let deep = format!("/m2/{}", vec!["x".repeat(250); 15].join("/"));
    fs::create_dir_all(&deep).expect("mkdir");
    for _ in 0..1200 {
        assert_eq!(mount_bind("/tmp", &deep), Ok(()));
    }
    assert!(read("/proc/self/mountinfo").len() > 4 << 20);
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    assert_proc("/m");
    match umount("/m") {
        // Linux before 6.8, on which the whole table has to be read.
        Err(Errno::BUSY) => assert_eq!(mounts_at("/m"), 4),
        said => assert_eq!(said, Ok(())),
    }
    assert_eq!(unmount("/m2", UnmountFlags::DETACH), Ok(()));
    if mounts_at("/m") > 0 {
        assert_eq!(umount("/m"), Ok(()), "the table is small again");
    }
    // With more on it than anybody mounts, a proc is left to the kernel where its mounts are looked at
    // one by one.
    assert_eq!(try_mount("proc", "/m", 0, ""), Ok(()));
    for _ in 0..1100 {
        assert_eq!(mount_bind("/m/uptime", "/m/uptime"), Ok(()));
    }
    match umount("/m") {
        Err(Errno::BUSY) => assert_eq!(unmount("/m", UnmountFlags::DETACH), Ok(())),
        said => assert_eq!(said, Ok(())),
    }
    assert_eq!(mounts_at("/m"), 0);
}
