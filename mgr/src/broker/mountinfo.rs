//! `/proc/TID/mountinfo`, as far as unmounting needs it.

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id of the mount.
    pub id: u64,
    /// Id of the mount that it is on.
    pub parent: u64,
    /// Device of its file system, as in `st_dev`.
    pub device: u64,
    /// Where it is, below the root of the task whose file this is.
    pub point: Vec<u8>,
    /// Whether the mount (not its file system) is read-only.
    pub read_only: bool,
    /// Whether mounts and umounts on it appear in other mount namespaces, too.
    pub shared: bool,
    /// File system type.
    pub file_system: Vec<u8>,
}

/// Reads the file. Lines of another shape are skipped; there are none.
pub fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next()?;
    let colon = device.iter().position(|&byte| byte == b':')?;
    let major = u32::try_from(number(&device[..colon])?).ok()?;
    let minor = u32::try_from(number(&device[colon + 1..])?).ok()?;
    let _root = fields.next()?;
    let point = unescape(fields.next()?);
    let options = fields.next()?;
    // A varying number of optional fields, then a lone dash.
    let mut shared = false;
    for field in fields.by_ref().take_while(|&field| field != b"-") {
        shared |= field.starts_with(b"shared:");
    }
    Some(Entry {
        id,
        parent,
        device: rustix::fs::makedev(major, minor),
        point,
        read_only: options.split(|&byte| byte == b',').any(|option| option == b"ro"),
        shared,
        file_system: fields.next()?.to_vec(),
    })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The kernel writes blanks, line breaks and backslashes of names as `\ooo`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = rest.get(1..4).filter(|_| byte == b'\\').and_then(octal);
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &rest[4..] } else { after };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = b"36 35 98:5 /mnt1 /mnt\\0402\\134x ro,noatime master:1 - ext3 /dev/root rw\n\
            37 36 0:300 / /proc rw shared:1 master:2 - proc proc rw\nrubbish\n";
        let entries = parse(text);
        let expected = Entry {
            id: 36,
            parent: 35,
            device: rustix::fs::makedev(98, 5),
            point: b"/mnt 2\\x".to_vec(),
            read_only: true,
            shared: false,
            file_system: b"ext3".to_vec(),
        };
        assert_eq!(entries[0], expected);
        assert_eq!(entries[1].file_system, b"proc");
        assert!(!entries[1].read_only && entries[1].shared);
        assert_eq!(entries.len(), 2);
    }
}
