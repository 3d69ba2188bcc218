//! How many mounts the broker has made for a container.
//!
//! The kernel charges the memory of a mount to who makes it, here to the manager, so a container's memory
//! limit does not bound it: a proc with its virtualised files takes about 90 KiB. `fs.mount-max` bounds the
//! mounts of one mount namespace, but a container may have any number of those. So the broker takes the same
//! number as a bound for all that it makes for one container, wherever in it.
//!
//! Nobody tells when a mount is gone (most go with their namespace). So they are only looked for when the
//! bound is reached: one statmount(2) each.

use std::sync::Mutex;

use rustix::io::Errno;
use sysbox_kernel::mount_table::{self, MountId, NamespaceId};

use crate::sync::lock;

/// `fs.mount-max` where it can't be read: the kernel's default.
const DEFAULT: usize = 100_000;
/// So many are never too many.
const FEW: usize = 1000;

/// The mounts that the broker has made for a container, as far as they were not seen to be gone.
#[derive(Debug, Default)]
pub struct Made {
    /// Instead of `fs.mount-max`.
    most: Option<usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mounts: Vec<Mount>,
    /// Of all in `mounts`, and of those that are being made.
    size: usize,
}

/// A mount with what is on it.
#[derive(Debug)]
struct Mount {
    namespace: NamespaceId,
    id: MountId,
    /// How many mounts it is.
    size: usize,
}

/// Room for a mount that is being made; given back unless the mount is kept.
#[derive(Debug)]
pub struct Room<'a> {
    made: &'a Made,
    size: usize,
}

impl Made {
    /// With a bound of its own instead of `fs.mount-max`.
    pub fn at_most(mounts: usize) -> Self {
        Self { most: Some(mounts), ..Self::default() }
    }

    /// Takes room for a mount with `size - 1` others on it.
    ///
    /// # Errors
    /// `ENOSPC`, as at the kernel's own bound.
    pub(super) fn room(&self, size: usize) -> Result<Room<'_>, Errno> {
        // What can't be asked for is taken to be there.
        self.room_among(size, |mount| {
            mount_table::is_there(mount.namespace, mount.id).unwrap_or(true)
        })
    }

    fn room_among(
        &self,
        size: usize,
        is_there: impl Fn(&Mount) -> bool,
    ) -> Result<Room<'_>, Errno> {
        let mut state = lock(&self.state);
        let wanted = state.size + size;
        let most = match self.most {
            Some(most) => most,
            // Most containers never have more, and need not look.
            None if wanted <= FEW => FEW,
            None => mount_max(),
        };
        if wanted > most {
            let mut gone = 0;
            state.mounts.retain(|mount| {
                let stays = is_there(mount);
                gone += if stays { 0 } else { mount.size };
                stays
            });
            state.size -= gone;
            if state.size + size > most {
                return Err(Errno::NOSPC);
            }
        }
        state.size += size;
        Ok(Room { made: self, size })
    }
}

/// Read each time: root of the host may change it.
fn mount_max() -> usize {
    let text = std::fs::read_to_string("/proc/sys/fs/mount-max").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT)
}

impl Room<'_> {
    /// The mount is made: it takes the room until it is gone.
    pub fn keep(mut self, namespace: NamespaceId, id: MountId) {
        let size = std::mem::take(&mut self.size);
        lock(&self.made.state).mounts.push(Mount { namespace, id, size });
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        lock(&self.made.state).size -= self.size;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(number: u64) -> (NamespaceId, MountId) {
        (NamespaceId::from(1), MountId::from(number))
    }

    #[test]
    fn what_is_gone_makes_room() {
        let made = Made::at_most(10);
        let room = |size, there: &[u64]| {
            let there: HashSet<u64> = there.iter().copied().collect();
            made.room_among(size, move |mount| there.contains(&u64::from(mount.id)))
        };
        for number in 1..=3 {
            let (namespace, id) = id(number);
            room(3, &[]).unwrap().keep(namespace, id);
        }
        assert_eq!(room(3, &[1, 2, 3]).unwrap_err(), Errno::NOSPC);
        // Room that was not used, and exactly what is left.
        drop(room(1, &[1, 2, 3]).unwrap());
        let last = room(1, &[1, 2, 3]).unwrap();
        assert_eq!(room(1, &[1, 2, 3]).unwrap_err(), Errno::NOSPC);
        drop(last);
        let two_more = room(6, &[2]).unwrap();
        assert_eq!(room(2, &[2]).unwrap_err(), Errno::NOSPC, "one of three, and six");
        drop(two_more);
        assert_eq!(room(11, &[]).unwrap_err(), Errno::NOSPC, "more than ever fits");
        drop(room(10, &[]).unwrap());
    }

    #[test]
    fn the_bound_is_that_of_the_kernel() {
        assert!(mount_max() > FEW, "{}", mount_max());
        let made = Made::default();
        assert_eq!(made.room(mount_max() + 1).unwrap_err(), Errno::NOSPC);
        drop(made.room(mount_max()).unwrap());
    }
}
