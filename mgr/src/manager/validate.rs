//! Checks what a runtime asks for, before anything is done (pure).

use std::path::Path;

use sysbox_ipc::proto;

use crate::error::{Error, Result};
use crate::ids::{self, IdMapping};

/// Longest id: it names directories, for which file systems allow 255 bytes. (Runc allows 1024, but
/// fails to make its own directory of that name.)
const MAX_ID: usize = 255;

/// Checks a container's id by runc's rule.
pub fn id(id: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    let why = if id.is_empty() {
        "it is empty".to_owned()
    } else if id == "." || id == ".." {
        "it would name a directory".to_owned()
    } else if !id.bytes().all(allowed) {
        "only letters, digits and the characters _ + . - may be in it".to_owned()
    } else if id.len() > MAX_ID {
        format!("it is longer than {MAX_ID} bytes")
    } else {
        return Ok(());
    };
    let shown: String = id.chars().take(64).collect();
    Err(Error::new(format!("container id {shown:?} is not valid: {why}")))
}

/// Checks a `Register`; returns the mappings that it gives, both empty if it gives none.
pub fn request(request: &proto::Register) -> Result<(Vec<IdMapping>, Vec<IdMapping>)> {
    id(&request.id)?;
    for (what, path) in [("rootfs", &request.rootfs), ("owner_dir", &request.owner_dir)] {
        if !path.is_empty() && !Path::new(path).is_absolute() {
            return Err(Error::new(format!(
                "registering container {}: {what} {path:?} is not an absolute path",
                request.id
            )));
        }
    }
    let uids: Vec<_> = request.uid_mappings.iter().map(IdMapping::from).collect();
    let gids: Vec<_> = request.gid_mappings.iter().map(IdMapping::from).collect();
    if uids.is_empty() != gids.is_empty() {
        return Err(Error::new(format!(
            "the spec of container {} gives mappings for {} only",
            request.id,
            if uids.is_empty() { "gids" } else { "uids" }
        ))
        .remedy("give both linux.uidMappings and linux.gidMappings, or neither"));
    }
    if !uids.is_empty() {
        mappings(&uids, &gids)?;
    }
    Ok((uids, gids))
}

/// Checks mappings that somebody else has made.
pub fn mappings(uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    ids::validate("uid", uids)?;
    ids::validate("gid", gids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_runcs_rule() {
        for good in ["a", "0f.A_b+c-d", "..a", "...", &"x".repeat(MAX_ID)] {
            id(good).unwrap();
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "@trash", "a\n", &"x".repeat(MAX_ID + 1)] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mappings_come_in_pairs() {
        let mapping = proto::IdMapping { container_id: 0, host_id: 100_000, size: 10 };
        let mut r = proto::Register { id: "a".into(), rootfs: "/r".into(), ..Default::default() };
        assert_eq!(request(&r).unwrap(), (vec![], vec![]));
        r.uid_mappings = vec![mapping];
        assert!(request(&r).unwrap_err().message.contains("uids only"));
        r.gid_mappings = vec![mapping];
        assert_eq!(request(&r).unwrap().0.len(), 1);
        r.owner_dir = "relative".into();
        assert!(request(&r).is_err());
    }
}
