//! Flags as Go's `flag` package takes them, which is what runc's callers may write: one dash or two
//! before a long name, `--flag=true` and `--flag=false` for switches, and for `exec` and `ps` no
//! options after the container's id.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// Commands whose words after the container's id belong to somebody else.
const PASS_ON: [&str; 2] = ["exec", "ps"];

/// Rewrites a command line, the program's name first, to what clap takes.
pub(super) fn normalise(root: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut result = Vec::with_capacity(words.len() + 1);
    let mut words = words.into_iter();
    result.extend(words.next());
    let mut command = root;
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            result.push(word);
            continue;
        };
        if text == "--" {
            result.push(word);
            break;
        }
        let Some((name, value)) = flag(text) else {
            let is_command = std::ptr::eq(command, root);
            let is_id = !is_command && PASS_ON.contains(&command.get_name());
            match command.find_subcommand(text).filter(|_| is_command) {
                Some(found) => command = found,
                // A word that is no command: clap says so.
                None if is_command => {
                    result.push(word);
                    break;
                }
                None => {}
            }
            result.push(word);
            if is_id {
                result.extend(end_of_options(words.as_slice()));
                break;
            }
            continue;
        };
        let Some(known) = find(command, text, name) else {
            result.push(word);
            continue;
        };
        let takes_value = !matches!(known.get_action(), ArgAction::SetTrue | ArgAction::Help);
        match (takes_value, value) {
            (true, Some(value)) => result.push(format!("--{name}={value}").into()),
            (true, None) => {
                result.push(spelt(text, name));
                result.extend(words.next());
            }
            (false, None) => result.push(spelt(text, name)),
            (false, Some(value)) => match truth(value) {
                Some(true) => result.push(format!("--{name}").into()),
                Some(false) => {}
                None => result.push(word),
            },
        }
    }
    result.extend(words);
    result
}

/// Name and value of a flag.
fn flag(word: &str) -> Option<(&str, Option<&str>)> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    if name.is_empty() {
        return None;
    }
    Some(name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value))))
}

/// The option of that name: a long one, or with one dash a short one.
fn find<'a>(command: &'a Command, word: &str, name: &str) -> Option<&'a Arg> {
    let one_dash = !word.starts_with("--");
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name)
            || (one_dash && arg.get_short().is_some_and(|short| name == short.to_string()))
    })
}

fn spelt(word: &str, name: &str) -> OsString {
    if name.chars().count() == 1 && !word.starts_with("--") {
        format!("-{name}").into()
    } else {
        format!("--{name}").into()
    }
}

/// strconv.ParseBool of Go.
fn truth(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Nothing after the id is an option of ours.
fn end_of_options(rest: &[OsString]) -> Option<OsString> {
    let next = rest.first()?.to_str()?;
    (next.starts_with('-') && next != "--").then(|| "--".into())
}
