//! The log: to journald, with levels and fields of its own, or as text to standard error.
//!
//! Its filter can be replaced at run time (`sysbox log-level`), since what is to be looked at closely
//! is usually running already.

use std::fmt;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, bail};
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// To journald if standard error goes there anyway, otherwise to standard error.
    #[default]
    Auto,
    /// To journald.
    Journald,
    /// To standard error.
    Stderr,
}

/// The filter in force, as it was written.
struct Filter {
    handle: reload::Handle<Targets, Registry>,
    text: Mutex<String>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("text", &self.text).finish_non_exhaustive()
    }
}

static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts the log of this process. To be called once.
///
/// # Errors
/// A filter that is none; journald is wanted and is not there.
pub fn init(program: &str, filter: &str, output: Output) -> anyhow::Result<()> {
    let targets = parse(filter)?;
    let (layer, handle) = reload::Layer::new(targets);
    let to_journald = match output {
        Output::Auto => goes_to_journald(std::io::stderr()),
        Output::Journald => true,
        Output::Stderr => false,
    };
    let journald = match to_journald.then(tracing_journald::layer) {
        Some(Err(e)) if output == Output::Journald => {
            return Err(e).context("sending the log to journald; is it running?");
        }
        Some(made) => made.ok(),
        None => None,
    };
    let journald = journald.map(|layer| {
        let priorities = PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        };
        layer.with_syslog_identifier(program.to_owned()).with_priority_mappings(priorities)
    });
    let text = journald.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
    });
    tracing_subscriber::registry().with(layer).with(journald).with(text).try_init()?;
    let _ = FILTER.set(Filter { handle, text: Mutex::new(filter.to_owned()) });
    Ok(())
}

/// The filter in force; empty before [`init`].
pub fn level() -> String {
    FILTER.get().map(|filter| lock(&filter.text).clone()).unwrap_or_default()
}

/// Puts another filter in force.
///
/// # Errors
/// It is none: says what one looks like.
pub fn set_level(text: &str) -> anyhow::Result<()> {
    let targets = parse(text)?;
    let filter = FILTER.get().context("this process writes no log")?;
    filter.handle.reload(targets).context("changing the level of the log")?;
    tracing::info!(from = *lock(&filter.text), to = text, "the level of the log was changed");
    text.clone_into(&mut lock(&filter.text));
    Ok(())
}

/// Reads a filter: a level, or `module=level` for a part of the program, several with commas.
fn parse(text: &str) -> anyhow::Result<Targets> {
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if level.trim().is_empty() || level.trim().parse::<LevelFilter>().is_err() {
            bail!(
                "{text:?} is no level of the log: use off, error, warn, info, debug or trace, or parts \
                 of the program with a level each, such as info,sysbox_mgr::broker=debug"
            );
        }
    }
    text.parse().with_context(|| format!("level of the log {text:?}"))
}

/// Whether systemd has connected this descriptor with journald: it says device and inode number of
/// that connection, systemd.exec(5).
fn goes_to_journald(descriptor: impl AsFd) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let own = rustix::fs::fstat(descriptor).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    own.is_ok_and(|own| own == stream)
}

fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_parts_are_understood_and_nothing_else() {
        for good in ["info", "off", "WARN", "info,sysbox_mgr::broker=debug", "sysbox_fs=trace"] {
            parse(good).unwrap();
        }
        for bad in ["", "loud", "sysbox_mgr=loud", "info,loud"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_level_of_a_running_program_changes() {
        init("test", "error", Output::Stderr).unwrap();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        set_level("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(set_level("loud").unwrap_err().to_string().contains("use off, error"));
        assert_eq!(level(), "debug");
    }
}
