//! What is printed: a table, or the same as JSON.

use std::io::{self, Write};

use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Report {
    /// All of it.
    pub json: Value,
    /// What people want to see of it. The first line is the head; empty if there is only JSON.
    pub table: Vec<Vec<String>>,
}

impl Report {
    /// Prints it to standard output.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json || self.table.is_empty() {
            print(&format!("{:#}\n", self.json))
        } else {
            print(&columns(&self.table))
        }
    }
}

/// Prints a text to standard output. A reader that has seen enough is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // `sysbox ps | head`
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// Lines with columns as wide as their widest cell.
pub fn columns(table: &[Vec<String>]) -> String {
    let length = |cell: &String| cell.chars().count();
    let width = |n: usize| table.iter().filter_map(|row| row.get(n)).map(length).max();
    let mut text = String::new();
    for row in table {
        let mut line = String::new();
        for (n, cell) in row.iter().enumerate() {
            line.push_str(&format!("{cell:<width$}   ", width = width(n).unwrap_or(0)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line of a table.
pub fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() }).to_vec()
}

/// Bytes for people: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration for people, of the two largest units: `3d 4h`.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    let (d, h, m, s) = (s / 86400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, m) => format!("{m}m {s}s"),
        (0, h, m) => format!("{h}h {m}m"),
        (d, h, _) => format!("{d}d {h}h"),
    }
}

/// Ids as engines show them.
pub fn short(id: &str) -> &str {
    let is_long = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_long { &id[..12] } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = [row(["NAME", "X"]), row(["é", "long"]), row(["", "y"])];
        assert_eq!(columns(&table), "NAME   X\né      long\n-      y\n");
    }

    #[test]
    fn numbers_are_for_people() {
        let units =
            [(5, "5 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (u64::MAX, "16384.0 PiB")];
        for (count, text) in units {
            assert_eq!(bytes(count), text);
        }
        let times = [(900, "0s"), (61_000, "1m 1s"), (3_660_000, "1h 1m"), (90_000_000, "1d 1h")];
        for (ms, text) in times {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn only_long_ids_are_cut() {
        assert_eq!(short(&"ab".repeat(32)), "abababababab");
        assert_eq!(short("my-container-of-today"), "my-container-of-today");
    }
}
