//! The flags and options of mount(2) in the words of the new mount API.

use std::ffi::CString;

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// Options for a new file system: keys with a value, or flags without one.
pub type Settings = Vec<(CString, Option<CString>)>;

const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 1 << 1;
const MS_NODEV: u64 = 1 << 2;
const MS_NOEXEC: u64 = 1 << 3;
const MS_SYNCHRONOUS: u64 = 1 << 4;
const MS_MANDLOCK: u64 = 1 << 6;
const MS_DIRSYNC: u64 = 1 << 7;
const MS_NOSYMFOLLOW: u64 = 1 << 8;
const MS_NOATIME: u64 = 1 << 10;
const MS_NODIRATIME: u64 = 1 << 11;
const MS_STRICTATIME: u64 = 1 << 24;
const MS_LAZYTIME: u64 = 1 << 25;

/// The attributes of the mount, as the kernel's `path_mount()` derives them.
pub fn attributes(flags: u64) -> MountAttrFlags {
    let plain = [
        (MS_RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MS_NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MS_NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MS_NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MS_NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        (MS_NOSYMFOLLOW, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in plain {
        if flags & flag != 0 {
            attributes |= attribute;
        }
    }
    // "relatime" is the default and the absence of the other two; strict wins.
    if flags & MS_STRICTATIME != 0 {
        attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    } else if flags & MS_NOATIME != 0 {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME;
    }
    attributes
}

/// The flags that belong to the file system and not to the mount.
pub fn superblock_flags(flags: u64) -> Settings {
    let all = [
        (MS_RDONLY, c"ro"),
        (MS_SYNCHRONOUS, c"sync"),
        (MS_MANDLOCK, c"mand"),
        (MS_DIRSYNC, c"dirsync"),
        (MS_LAZYTIME, c"lazytime"),
    ];
    all.iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| ((*name).to_owned(), None))
        .collect()
}

/// What `source` of mount(2) becomes: it is shown in mount tables, nothing more.
pub fn source(source: Option<Vec<u8>>) -> Result<Settings, Errno> {
    match source {
        None => Ok(Settings::new()),
        Some(name) => Ok(vec![(c"source".to_owned(), Some(text(&name)?))]),
    }
}

/// Options that hold for every file system, and don't need looking at.
const GENERIC: [&[u8]; 9] =
    [b"ro", b"rw", b"sync", b"async", b"dirsync", b"lazytime", b"nolazytime", b"mand", b"nomand"];

/// Splits the options of a procfs. `gid` translates the caller's group ids to the host's.
///
/// # Errors
/// `EINVAL` for what procfs does not know, as the kernel says. That is also said of options of
/// later kernels: what they mean for a broker is to be found out first (`pidns` takes a path).
pub fn proc(data: &[u8], gid: impl Fn(u32) -> Option<u32>) -> Result<Settings, Errno> {
    let mut settings = Settings::new();
    for (key, value) in split(data) {
        let value = match (key, value) {
            (b"hidepid" | b"subset", Some(value)) => Some(text(value)?),
            (b"gid", Some(value)) => {
                let number = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                let translated = number.and_then(&gid).ok_or(Errno::INVAL)?;
                Some(text(translated.to_string().as_bytes())?)
            }
            (key, None) if GENERIC.contains(&key) => None,
            _ => return Err(Errno::INVAL),
        };
        settings.push((text(key)?, value));
    }
    Ok(settings)
}

/// Checks the options of a file system that has none of its own.
pub fn none(data: &[u8]) -> Result<(), Errno> {
    let known = |(key, value): (&[u8], Option<&[u8]>)| value.is_none() && GENERIC.contains(&key);
    match split(data).all(known) {
        true => Ok(()),
        false => Err(Errno::INVAL),
    }
}

/// `key=value,key,...`; the kernel skips empty ones.
fn split(data: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    data.split(|&byte| byte == b',').filter(|option| !option.is_empty()).map(|option| match option
        .iter()
        .position(|&byte| byte == b'=')
    {
        Some(at) => (&option[..at], Some(&option[at + 1..])),
        None => (option, None),
    })
}

fn text(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proc_text(data: &str) -> Result<String, Errno> {
        let settings = proc(data.as_bytes(), |gid| (gid < 10).then_some(gid + 1000))?;
        let words = settings.iter().map(|(key, value)| {
            let key = key.to_string_lossy();
            match value {
                Some(value) => format!("{key}={}", value.to_string_lossy()),
                None => key.into_owned(),
            }
        });
        Ok(words.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_of_proc() {
        assert_eq!(proc_text(""), Ok(String::new()));
        assert_eq!(proc_text(",hidepid=2,,subset=pid,ro"), Ok("hidepid=2 subset=pid ro".into()));
        assert_eq!(proc_text("gid=5"), Ok("gid=1005".into()));
        for bad in ["gid=10", "gid=x", "gid", "hidepid", "pidns=/x", "ro=1", "source=x", "x", "=2"]
        {
            assert_eq!(proc_text(bad), Err(Errno::INVAL), "{bad}");
        }
        assert_eq!(none(b"ro,,sync"), Ok(()));
        assert_eq!(none(b"mode=755"), Err(Errno::INVAL));
    }

    #[test]
    fn flags() {
        let all = attributes(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
        assert_eq!(all.bits(), 0xf);
        assert_eq!(attributes(1 << 21).bits(), 0, "relatime is the default");
        let strict = attributes(MS_NOATIME | MS_STRICTATIME);
        assert_eq!(strict, MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        assert_eq!(superblock_flags(MS_RDONLY | MS_NOSUID), vec![(c"ro".to_owned(), None)]);
    }
}
