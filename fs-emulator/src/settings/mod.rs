//! Settings of the host that software inside writes: each container has values of its own.
//!
//! They are single files of `/proc/sys` (and a few of `/sys`) that the kernel keeps once for the
//! whole machine. A container that writes one changes what *it* reads back and nothing else; what
//! it never wrote reads as the host's. Values live as long as the container, over its
//! restarts, on disk too.

mod place;
mod rule;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use place::is_writable;
pub use rule::{Refusal, Rule};

use crate::table::Row;
use crate::view::host::Host;

/// How a setting behaves.
#[derive(Debug, Clone)]
pub struct Setting {
    /// What may be written.
    pub rule: Rule,
    /// The text before anything is written; without it, the host's.
    pub default: Option<&'static str>,
    /// The path of the setting that becomes 0 when this one is written: two units for one thing.
    pub instead_of: Option<&'static str>,
}

/// What a container wrote, by the path of the file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of a setting.
    pub fn text(&self, host: &Host, row: &Row, setting: &Setting) -> String {
        match (self.0.get(row.path), setting.default) {
            (Some(text), _) => text.clone(),
            (None, Some(default)) => default.to_owned(),
            (None, None) => host.read(row.path).unwrap_or_default(),
        }
    }

    /// Takes what is written to a setting.
    ///
    /// # Errors
    /// What the kernel would refuse; then nothing has changed.
    pub fn write(
        &mut self,
        host: &Host,
        row: &Row,
        setting: &Setting,
        written: &[u8],
    ) -> Result<(), Refusal> {
        let current = self.text(host, row, setting);
        let new = setting.rule.apply(&current, written)?;
        if matches!(setting.rule, Rule::Ignored) {
            return Ok(());
        }
        if let Some(other) = setting.instead_of
            && new != current
        {
            self.0.insert(other.to_owned(), "0\n".to_owned());
        }
        self.0.insert(row.path.to_owned(), new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Source, rows};

    fn find(path: &str) -> (&'static Row, &'static Setting) {
        let row = rows().find(|row| row.path == path).unwrap();
        let Source::Setting(setting) = &row.source else { panic!("{path}") };
        (row, setting)
    }

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("vm/dirty_ratio", "20\n"), ("vm/dirty_bytes", "0\n")] {
            let path = root.path().join("proc/sys").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::new(root.path());
        (root, host)
    }

    #[test]
    fn written_values_are_read_back_and_the_hosts_stay() {
        let (root, host) = host();
        let mut values = Values::default();
        let (ratio, bytes) = (find("proc/sys/vm/dirty_ratio"), find("proc/sys/vm/dirty_bytes"));
        assert_eq!(values.text(&host, ratio.0, ratio.1), "20\n");
        assert_eq!(values.write(&host, ratio.0, ratio.1, b"101"), Err(Refusal::Invalid));
        assert!(values.is_empty());
        values.write(&host, bytes.0, bytes.1, b"1048576\n").unwrap();
        assert_eq!(values.text(&host, bytes.0, bytes.1), "1048576\n");
        assert_eq!(values.text(&host, ratio.0, ratio.1), "0\n", "the other unit");
        values.write(&host, ratio.0, ratio.1, b"30").unwrap();
        assert_eq!(values.text(&host, bytes.0, bytes.1), "0\n");
        let native = std::fs::read_to_string(root.path().join("proc/sys/vm/dirty_ratio")).unwrap();
        assert_eq!(native, "20\n");
        let copy: Values = serde_json::from_str(&serde_json::to_string(&values).unwrap()).unwrap();
        assert_eq!(copy, values);
    }

    #[test]
    fn core_pattern_is_never_the_hosts() {
        let (_root, host) = host();
        let (row, setting) = find("proc/sys/kernel/core_pattern");
        assert_eq!(Values::default().text(&host, row, setting), "core\n");
    }
}
