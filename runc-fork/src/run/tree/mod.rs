//! The container's mount tree, built by the host side before the container has a mount namespace
//! of its own.
//!
//! Init later copies the namespace *inside its user namespace*; the kernel then locks every mount
//! that is made here: it can be neither uncovered nor made writable from inside, and no program of
//! ours has to guard it. Everything is done by descriptor: a destination is looked up once, inside
//! the root, and a mount is composed while detached and attached last.

mod bind;
mod destination;
mod devices;
mod mask;
pub mod mountinfo;
mod overlay;
mod own_ids;
mod pseudo;
mod rootfs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use sysbox_ipc::paths;
use sysbox_kernel::mount::{Attributes, attach, new_mount, set_attributes};
use sysbox_kernel::ns::{UnshareFlags, unshare};
use sysbox_kernel::process::set_fs_ids;

pub use bind::apply_attributes;
pub use destination::{Kind, find, make};

use crate::plan::{MountPlan, Plan, Source};

/// What the tree is built from besides the plan.
pub struct Parts<'a> {
    /// The container's user namespace, for ID-mapped mounts.
    pub userns: BorrowedFd<'a>,
    /// Its pid namespace, for /proc.
    pub pidns: BorrowedFd<'a>,
    /// Its network namespace, for /sys.
    pub netns: BorrowedFd<'a>,
    /// Its ipc namespace, for /dev/mqueue.
    pub ipcns: BorrowedFd<'a>,
    /// Hands out what only a process inside the user namespace can make, in the plan's order.
    pub devpts: &'a dyn Fn() -> Result<OwnedFd>,
    /// Directory of the virtualised files and the files below it.
    pub emulated: (&'a Path, &'a [String]),
}

/// The finished tree.
#[derive(Debug)]
pub struct Tree {
    /// The root file system's mount, attached over the engine's in the builder's mount namespace.
    pub root: OwnedFd,
    /// A work directory that was made for the overlay, to be removed with the container.
    pub work_directory: Option<PathBuf>,
    /// What the user should know, e.g. a volume that could not be ID-mapped.
    pub warnings: Vec<String>,
}

/// Moves the caller into a private copy of its mount namespace, with a tmpfs to build on.
pub fn enter_private_namespace() -> Result<()> {
    unshare(UnshareFlags::NEWNS).context("make a private mount namespace")?;
    // Slave, not private: a volume that the user mounted with slave propagation has to see what
    // the host mounts later.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("make the mounts of the private namespace slaves")?;
    let stage = paths::run_dir().join("stage");
    std::fs::create_dir_all(&stage).with_context(|| format!("make {}", stage.display()))?;
    let options = [("mode", "0711"), ("size", "1m")];
    let tmpfs = new_mount("tmpfs", &options, MountAttrFlags::empty())
        .context("mount a tmpfs to build the container on")?;
    attach(&tmpfs, open_directory(&stage)?)
        .with_context(|| format!("mount a tmpfs on {}", stage.display()))?;
    private(&tmpfs)
}

/// Builds the tree. The caller is alone in its mount namespace (see [`enter_private_namespace`]).
pub fn build(plan: &Plan, context: &Parts<'_>) -> Result<Tree> {
    let root_uid = plan.ids.host_uid(0).context("user id 0 of the container is not mapped")?;
    let root_gid = plan.ids.host_gid(0).context("group id 0 of the container is not mapped")?;
    // Before the file-system ids change: it takes root's to write mappings.
    let own = own_ids::namespaces(plan)?;
    // Files made on the way (mount points, device nodes) must belong to container root, and the
    // kernel accepts no others on an ID-mapped mount. Capabilities stay: a change of the
    // file-system ids drops them only without this securebit.
    let bits = rustix::thread::capabilities_secure_bits()?;
    let keep = rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP;
    rustix::thread::set_capabilities_secure_bits(bits | keep)
        .context("keep capabilities over setfsuid")?;
    let old = set_fs_ids(root_uid, root_gid)
        .context("take the file-system ids of the container's root")?;
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    let result = build_as_container_root(plan, context, &own);
    rustix::process::umask(mask);
    set_fs_ids(old.0, old.1).context("return to the file-system ids of root")?;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    result
}

fn build_as_container_root(
    plan: &Plan,
    context: &Parts<'_>,
    own: &[Option<OwnedFd>],
) -> Result<Tree> {
    let rootfs::Rootfs { mount: root, work_directory } = rootfs::mount(plan, context.userns)?;
    // In the place of the engine's, for hooks that enter the container's mount namespace and mount
    // something below `root.path` (GPU drivers come so). Nobody else sees it.
    attach(&root, open_directory(&plan.rootfs)?).context("attach the root file system")?;
    private(&root)?;
    let mut tree = Tree { root, work_directory, warnings: Vec::new() };
    for (mount, own) in plan.mounts.iter().zip(own) {
        place(plan, context, &mut tree, (mount, own.as_ref().map(AsFd::as_fd)))
            .with_context(|| mounting(mount))
            .context("unable to start container process: error during container init")?;
    }
    pseudo::attach_emulated(tree.root.as_fd(), context.netns, context.emulated)?;
    devices::make(plan, tree.root.as_fd())?;
    close_dev(plan, tree.root.as_fd())?;
    make_working_directory(tree.root.as_fd(), &plan.process.cwd)?;
    mask::read_only_paths(tree.root.as_fd(), &plan.read_only_paths)?;
    mask::masked_paths(tree.root.as_fd(), &plan.masked_paths, plan.mount_label.as_deref())?;
    if plan.root_read_only {
        let set = u64::from(linux_raw_sys::general::MOUNT_ATTR_RDONLY);
        let attributes = Attributes { set, ..Attributes::default() };
        set_attributes(&tree.root, attributes, false)
            .context("make the root file system read-only")?;
    }
    Ok(tree)
}

/// The words of runc, which people search for.
fn mounting(mount: &MountPlan) -> String {
    let source = match &mount.source {
        Source::Bind(path) | Source::Store(path) => path.display().to_string(),
        _ => mount.shown_source.clone(),
    };
    format!("error mounting {source:?} to rootfs at {:?}", mount.destination.display().to_string())
}

/// Makes the working directory if the image has none, for the container's root, as runc does; also in
/// a root file system that will be read-only.
fn make_working_directory(root: BorrowedFd<'_>, cwd: &Path) -> Result<()> {
    if cwd == Path::new("/") {
        return Ok(());
    }
    make(root, cwd, Kind::Directory)
        .map(drop)
        .with_context(|| format!("make the working directory {cwd:?}"))
}

const DEV: &str = "/dev";
const READ_ONLY: u64 = linux_raw_sys::general::MOUNT_ATTR_RDONLY as u64;

/// Makes a /dev read-only that is to be, now that its devices are there.
fn close_dev(plan: &Plan, root: BorrowedFd<'_>) -> Result<()> {
    let wanted = |m: &&MountPlan| m.destination == Path::new(DEV) && m.source == Source::Tmpfs;
    let dev = plan.mounts.iter().rfind(wanted);
    if let Some(dev) = dev.filter(|mount| mount.options.read_only())
        && let Some(mount) = find(root, &dev.destination)?
    {
        let attributes = Attributes { set: READ_ONLY, ..Attributes::default() };
        set_attributes(&mount, attributes, false).context("make /dev read-only")?;
    }
    Ok(())
}

fn place(
    plan: &Plan,
    context: &Parts<'_>,
    tree: &mut Tree,
    (mount, own): (&MountPlan, Option<BorrowedFd<'_>>),
) -> Result<()> {
    let root = tree.root.as_fd();
    let (detached, kind) = match &mount.source {
        Source::Cgroup => {
            make(root, &mount.destination, Kind::Directory)?;
            return Ok(());
        }
        Source::Devpts => {
            let made = (context.devpts)()?;
            apply_attributes(&made, mount)?;
            (made, Kind::Directory)
        }
        Source::Mqueue => (pseudo::mqueue(context.ipcns, mount)?, Kind::Directory),
        Source::Proc => (pseudo::proc(context.pidns, mount)?, Kind::Directory),
        Source::Sysfs => (pseudo::sysfs(context.netns, mount)?, Kind::Directory),
        Source::Tmpfs if mount.destination == Path::new(DEV) => {
            let mut writable = mount.clone();
            writable.options.attributes.0 &= !READ_ONLY;
            (pseudo::tmpfs(&plan.ids, &writable)?, Kind::Directory)
        }
        Source::Tmpfs => (pseudo::tmpfs(&plan.ids, mount)?, Kind::Directory),
        Source::Bind(source) => {
            let opened = bind::open_source(source)?;
            bind::clone(plan, context.userns, mount, own, (source, opened), &mut tree.warnings)?
        }
        Source::Store(source) => {
            let opened = bind::open_store(source)?;
            bind::clone(plan, context.userns, mount, own, (source, opened), &mut tree.warnings)?
        }
        Source::Other(fs_type) => (pseudo::other(fs_type, mount)?, Kind::Directory),
    };
    let root = tree.root.as_fd();
    let target = make(root, &mount.destination, kind)?;
    attach(&detached, target).context("attach it")?;
    bind::propagation(&detached, mount)
}

/// A directory on the builder's own tmpfs, for mounts that are needed for a moment.
fn scratch_directory(name: &str) -> Result<PathBuf> {
    let path = paths::run_dir().join("stage").join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

/// Why a file system that a container cannot do without could not be ID-mapped, and what to do.
fn cannot_be_mapped(error: &std::io::Error, remedy: &str) -> String {
    if error.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()) {
        "this kernel has no ID-mapped mounts; Linux 5.19 or newer is needed".to_owned()
    } else {
        format!("it cannot be ID-mapped by this kernel; {remedy}")
    }
}

/// Cuts a mount off from the propagation of the place that it came from.
fn private(mount: impl AsFd) -> Result<()> {
    let propagation = Some(sysbox_kernel::mount::Propagation::Private);
    let attributes = Attributes { propagation, ..Attributes::default() };
    set_attributes(mount, attributes, false).context("make a mount private")
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}
