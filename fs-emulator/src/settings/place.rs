//! Whether a setting may be written where its opener sees it.
//!
//! An engine makes `/proc/sys` of an unprivileged container read-only by a bind mount over it. The
//! emulated files are mounts of their own below that place, so its `ro` does not reach them; the
//! mount table of the opener tells.

/// A mount of the opener's mount table.
struct Mount<'a> {
    id: u32,
    parent: u32,
    root: &'a str,
    point: &'a str,
    read_only: bool,
    ours: bool,
}

/// Whether a file of our file system, known by any of `roots` ("/7/proc/sys/kernel/panic"), lies anywhere in the
/// mount table `mountinfo` (the text of `/proc/PID/mountinfo`) where its surroundings are not
/// read-only. Where it is mounted nowhere, it was opened in our own mount: writable.
pub fn is_writable(mountinfo: &str, roots: &[impl AsRef<str>]) -> bool {
    let mounts: Vec<_> = mountinfo.lines().filter_map(parse).collect();
    let is_it = |m: &&Mount<'_>| m.ours && roots.iter().any(|root| root.as_ref() == m.root);
    let mut places = mounts.iter().filter(is_it).peekable();
    places.peek().is_none() || places.any(|m| is_visible(&mounts, m) && !around(&mounts, m))
}

/// Whether what a mount is attached to is read-only. That may be another file of this kind, which an
/// outer system container has in the same place; then also what that one is attached to.
fn around(mounts: &[Mount<'_>], mount: &Mount<'_>) -> bool {
    let parent = |of: &Mount<'_>| mounts.iter().find(|m| m.id == of.parent);
    let ways = std::iter::successors(parent(mount), |m| parent(m).filter(|_| m.ours));
    ways.take(mounts.len()).any(|m| m.read_only)
}

/// Whether a mount and those that it is attached to are not hidden below others.
fn is_visible(mounts: &[Mount<'_>], mount: &Mount<'_>) -> bool {
    let (mut mount, mut left) = (mount, mounts.len());
    // What the way came from does not hide what it is attached to: it may be right on top of another
    // file, as in a system container inside of a system container.
    let mut came_from = mount.id;
    loop {
        let hides = |other: &Mount<'_>| {
            let above = mount.point.strip_prefix(other.point).is_some_and(|r| r.starts_with('/'));
            let sibling = other.parent == mount.parent && above;
            let on_top = other.parent == mount.id && other.point == mount.point;
            other.id != mount.id && other.id != came_from && (sibling || on_top)
        };
        if mounts.iter().any(hides) {
            return false;
        }
        // The way up ends at the root, or after as many steps as there are mounts.
        match mounts.iter().find(|m| m.id == mount.parent && m.id != mount.id) {
            Some(parent) if left > 0 => {
                (came_from, mount, left) = (mount.id, parent, left - 1);
            }
            _ => return true,
        }
    }
}

/// Parses a line: "id parent major:minor root point options ... - type source options".
fn parse(line: &str) -> Option<Mount<'_>> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ');
    let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (root, point) = (fields.nth(1)?, fields.next()?);
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    let ours = filesystem.starts_with("fuse.sysbox-fs ");
    Some(Mount { id, parent, root, point, read_only, ours })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/7/proc/sys/kernel/panic";

    fn table(proc_sys: &str) -> String {
        format!(
            "1 0 0:1 / / rw - overlay overlay rw\n\
             2 1 0:2 / /proc rw,nosuid - proc proc rw\n\
             3 2 0:9 {FILE} /proc/sys/kernel/panic rw - fuse.sysbox-fs sysbox-fs rw\n{proc_sys}"
        )
    }

    #[test]
    fn what_lies_around_decides() {
        assert!(is_writable(&table(""), &[FILE]));
        assert!(is_writable("", &[FILE]), "our own mount");
        let bound = |options: &str, more: &str| {
            table(&format!(
                "4 2 0:2 /sys /proc/sys {options} - proc proc rw\n\
                 5 4 0:9 {FILE} /proc/sys/kernel/panic rw - fuse.sysbox-fs sysbox-fs rw\n{more}"
            ))
        };
        assert!(!is_writable(&bound("ro,nosuid", ""), &[FILE]));
        assert!(is_writable(&bound("rw", ""), &[FILE]));
        // A second proc elsewhere, not read-only: it may have been opened there.
        let second = "6 1 0:3 / /mnt rw - proc proc rw\n\
             7 6 0:9 /7/proc/sys/kernel/panic /mnt/sys/kernel/panic rw - fuse.sysbox-fs x rw\n";
        assert!(is_writable(&bound("ro", second), &[FILE]));
    }

    #[test]
    fn a_proc_of_its_own_that_is_read_only() {
        assert!(!is_writable(&table("").replace("rw,nosuid", "ro,nosuid"), &[FILE]));
    }

    #[test]
    fn a_file_on_top_of_another_systems() {
        let nested = |options: &str| {
            format!(
                "1 0 0:1 / / rw - overlay overlay rw\n\
                 2 1 0:2 / /proc {options} - proc proc rw\n\
                 3 2 0:8 {FILE} /proc/sys/kernel/panic rw - fuse.sysbox-fs sysbox-fs rw\n\
                 4 3 0:9 {FILE} /proc/sys/kernel/panic rw - fuse.sysbox-fs sysbox-fs rw\n"
            )
        };
        assert!(is_writable(&nested("rw"), &[FILE]));
        assert!(!is_writable(&nested("ro"), &[FILE]));
    }

    #[test]
    fn nonsense_ends() {
        let cycle = format!("1 2 0:1 / / rw - x x x\n2 1 0:9 {FILE} /a rw - fuse.sysbox-fs x rw\n");
        assert!(is_writable(&cycle, &[FILE]));
    }
}
