//! `docs/emulated-files.md`, made of the tables.

use std::fmt::Write;
use std::path::Path;

use super::native::NATIVE;
use super::{Row, Source, resources, settings};
use crate::settings::{Rule, Setting};

const HEAD: &str = "\
# Files of /proc and /sys that are not the kernel's own

This page is made of the tables in [`fs-emulator/src/table/`](../fs-emulator/src/table/) by the tests of that crate; change it
there, and run `UPDATE_DOCS=1 cargo test -p sysbox-fs docs_are_up_to_date`.

A file is here if the kernel keeps it once for the machine and software inside would be misled by it, or wants to write it. What
the kernel has per namespace is never touched: most of /proc/sys/net, /proc/sys/user, System V and POSIX IPC, /proc/PID. Single
files are mounted over the kernel's, never a directory; those that the host does not have are left out. The text is made when the
file is opened (and when a reader goes back to its beginning), for the cgroup of the reader: an inner container sees its own limits.
";

const SETTINGS: &str = "
## Settings

Each container has values of its own; what it never wrote reads as the host's. Writing is checked as the kernel checks it, changes
nothing but what the container reads back, and lasts as long as the container, over restarts of it and of the daemons (not of the
host). Permissions are those of the host's file, with
container root in root's place; where an engine made /proc/sys read-only for an inner container, these files are, too (`EROFS`).

| file | takes | why |
|---|---|---|
";

const OTHERS: &str = "
## Others that tell of the host

| file | inside | why |
|---|---|---|
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page += "\n## Resources\n\n| file | says | because the kernel's own |\n|---|---|---|\n";
    for Row { path, meaning, reason, .. } in resources::RESOURCES {
        writeln!(page, "| `/{path}` | {meaning} | {reason} |").unwrap();
    }
    page += SETTINGS;
    for Row { path, reason, source, .. } in settings::SETTINGS {
        let Source::Setting(setting) = source else { panic!("{path} is no setting") };
        writeln!(page, "| `/{path}` | {} | {reason} |", takes(setting)).unwrap();
    }
    page += OTHERS;
    for (paths, inside, why) in NATIVE {
        writeln!(page, "| {paths} | {inside} | {why} |").unwrap();
    }
    page
}

fn takes(setting: &Setting) -> String {
    let range = |range: &std::ops::RangeInclusive<i64>| match (*range.start(), *range.end()) {
        (min, max) if min == i64::from(i32::MIN) && max == i64::from(i32::MAX) => "any".to_owned(),
        (min, max) if max >= i64::from(i32::MAX) => format!("{min} or more"),
        (min, max) if min == max => min.to_string(),
        (min, max) => format!("{min} to {max}"),
    };
    let mut text = match &setting.rule {
        Rule::Numbers(1, numbers) => range(numbers),
        Rule::Numbers(count, _) => format!("{count} numbers"),
        Rule::Latch(numbers, last) => format!("{}; {last} stays", range(numbers)),
        Rule::Large(numbers) => format!("{} or more", numbers.start()),
        Rule::PipeSize => "bytes, rounded up as the kernel does".to_owned(),
        Rule::Line(longest) => format!("a line of at most {longest} bytes"),
        Rule::Word(words) => words.join(", "),
        Rule::Choice => "one of the words that it offers".to_owned(),
        Rule::Ignored => "anything".to_owned(),
    };
    if let Some(other) = setting.instead_of {
        let name = other.rsplit('/').next().unwrap();
        write!(text, "; makes {name} 0").unwrap();
    }
    if let Some(default) = setting.default.map(str::trim).filter(|d| !d.is_empty()) {
        write!(text, "; at first {default}").unwrap();
    }
    text
}

#[test]
fn docs_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/emulated-files.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/emulated-files.md is not what the tables say: make it anew with \
         UPDATE_DOCS=1 cargo test -p sysbox-fs docs_are_up_to_date"
    );
}
