//! Messages in runc's formats: lines on stderr, or on the file of `--log`, as text or JSON.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How many warnings the manager is told, and how many characters of each.
const TOLD: usize = 16;
const LONGEST: usize = 500;

/// Decides once where messages go.
pub fn init(path: Option<&Path>, json: bool, debug: bool) -> Result<()> {
    let open = |path: &Path| {
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("open the log file {} (--log)", path.display()))
    };
    let file = path.map(open).transpose()?;
    let _ = LOG.set(Log { file, json, debug });
    Ok(())
}

/// The whole chain of an error. What the kernel said is spelt as runc's users (and the programs that
/// read its messages) know it: "no such file or directory" instead of Rust's form with a number.
pub fn chain(error: &anyhow::Error) -> String {
    let spell = |text: String| {
        let Some(end) = text.rfind(" (os error ").filter(|_| text.ends_with(')')) else {
            return text;
        };
        let start = text[..end].rfind(": ").map_or(0, |colon| colon + 2);
        let (before, said) = (&text[..start], &text[start..end]);
        let mut letters = said.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        format!("{before}{}{}", first.map(String::from).unwrap_or_default(), letters.as_str())
    };
    let mut parts: Vec<String> = Vec::new();
    for part in error.chain().map(|cause| spell(cause.to_string())) {
        // Some errors tell their cause themselves.
        if !parts.last().is_some_and(|last| last.ends_with(&part)) {
            parts.push(part);
        }
    }
    parts.join(": ")
}

/// An error that ends the command: on the log, and on stderr for a person.
pub fn error(message: &str) {
    write("error", message);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        eprintln!("sysbox-runc: {message}");
    }
}

/// Something that the user should know but that stops nothing.
pub fn warn(message: &str) {
    write("warning", message);
    let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    if warnings.len() < TOLD {
        warnings.push(message.chars().take(LONGEST).collect());
    }
}

/// The warnings of this process so far, the first few of them. Engines keep the log of a runtime that
/// succeeded where nobody looks, so the manager is told them, too.
pub fn warnings() -> Vec<String> {
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Only with `--debug`.
pub fn debug(message: &str) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", message);
    }
}

fn write(level: &str, message: &str) {
    let Some(log) = LOG.get() else { return eprintln!("{level}: {message}") };
    let time = now_rfc3339();
    let line = if log.json {
        serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}")
    };
    // A log that cannot be written must not end a container.
    let _ = match &log.file {
        Some(file) => writeln!(&mut &*file, "{line}"),
        None => writeln!(std::io::stderr(), "{line}"),
    };
}

/// Where the time of a command goes, for `--debug`.
pub struct Phases {
    name: &'static str,
    last: std::cell::Cell<Instant>,
}

impl Phases {
    /// Starts to measure.
    pub fn start(name: &'static str) -> Self {
        Self { name, last: Instant::now().into() }
    }

    /// Ends a phase.
    pub fn mark(&self, phase: &str) {
        let took: Duration = self.last.replace(Instant::now()).elapsed();
        debug(&format!("{}: {phase} took {} us", self.name, took.as_micros()));
    }
}

/// The time now, RFC 3339 in UTC with nanoseconds.
pub fn now_rfc3339() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs(), now.subsec_nanos())
}

fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let mut text = String::new();
    let (h, m, s) = (rest / 3600, rest % 3600 / 60, rest % 60);
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if nanoseconds != 0 {
        let _ = write!(text, ".{nanoseconds:09}");
    }
    text + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_are_spelt_as_in_go() {
        let missing = std::io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(missing).context("open X").context("start it");
        assert_eq!(chain(&error), "start it: open X: no such file or directory");
        let twice = anyhow::anyhow!("gone").context("read X: gone");
        assert_eq!(chain(&twice), "read X: gone");
        let text = anyhow::anyhow!("exec a: Permission denied (os error 13)");
        assert_eq!(chain(&text), "exec a: permission denied");
        assert_eq!(chain(&anyhow::anyhow!("Plain: Text")), "Plain: Text");
    }

    #[test]
    fn known_dates() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696, 5), "2000-02-29T12:34:56.000000005Z");
        assert_eq!(rfc3339(1_767_225_599, 0), "2025-12-31T23:59:59Z");
    }
}
