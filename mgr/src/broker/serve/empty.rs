//! An empty read-only directory, for file systems that a booting system mounts out of habit.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::super::caller::Caller;
use super::super::host::set_options;
use super::mount::Wanted;
use super::{Attempt, Stop, options};

/// Makes a tmpfs that can hold nothing but its root directory. Options are not looked at: they
/// are those of the file system that it stands for.
pub fn make(caller: &Caller<'_>, wanted: &Wanted) -> Attempt<OwnedFd> {
    let mut settings = options::source(wanted.source.clone()).map_err(Stop::Refuse)?;
    let number = |number: u32| CString::new(number.to_string()).ok();
    settings.extend([
        (c"mode".to_owned(), Some(c"0555".to_owned())),
        (c"nr_inodes".to_owned(), Some(c"1".to_owned())),
        (c"size".to_owned(), Some(c"4096".to_owned())),
        (c"uid".to_owned(), number(caller.status.fsuid)),
        (c"gid".to_owned(), number(caller.status.fsgid)),
        (c"ro".to_owned(), None),
    ]);
    let attributes = options::attributes(wanted.flags)
        | MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let make = || -> io::Result<OwnedFd> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        set_options(&context, &settings)?;
        fsconfig_create(&context)?;
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    };
    make().map_err(|error| Stop::Broken("making an empty directory", error))
}
