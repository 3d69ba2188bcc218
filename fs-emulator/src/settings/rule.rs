//! What may be written to a setting, and how it is read back: the kernel's own rules
//! (`kernel/sysctl.c`), so that software inside meets the errors that it knows.

use std::ops::RangeInclusive;

/// Separators between numbers (`proc_wspace_sep`).
const SPACES: [char; 3] = [' ', '\t', '\n'];
/// Longest number that the kernel parses (`TMPBUFLEN`).
const LONGEST_NUMBER: usize = 22;
/// Bytes in a page.
const PAGE: u64 = 4096;

/// The rule of a setting.
#[derive(Debug, Clone)]
pub enum Rule {
    /// So many numbers in this range, `proc_dointvec_minmax`; writing fewer leaves the others.
    Numbers(usize, RangeInclusive<i64>),
    /// One number in this range; once it is the second value, every other one is refused.
    Latch(RangeInclusive<i64>, i64),
    /// One number that is not negative, `proc_doulongvec_minmax`.
    Large(RangeInclusive<u64>),
    /// A pipe's size in bytes: the kernel rounds it up to a power of two of pages.
    PipeSize,
    /// A line of at most so many bytes, `proc_dostring`.
    Line(usize),
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of the words that the host's file offers, `always [madvise] never`.
    Choice,
    /// Whatever is written is taken and does nothing.
    Ignored,
}

/// Why a value is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Malformed or out of range (`EINVAL`).
    #[error("malformed or out of range")]
    Invalid,
    /// Not to be changed any more (`EPERM`).
    #[error("can't be changed any more")]
    Final,
}

impl Rule {
    /// The file's text after `written` was written to it, where `current` is its text before.
    pub fn apply(&self, current: &str, written: &[u8]) -> Result<String, Refusal> {
        let written = std::str::from_utf8(written).map_err(|_| Refusal::Invalid)?;
        // The kernel stops at a zero byte.
        let written = written.split('\0').next().unwrap_or("");
        match self {
            Rule::Numbers(count, range) => numbers(current, written, *count, range),
            Rule::Latch(range, last) => {
                let new = numbers(current, written, 1, range)?;
                let latched = current.trim() == last.to_string();
                if latched && new.trim() != current.trim() { Err(Refusal::Final) } else { Ok(new) }
            }
            Rule::Large(range) => {
                let (number, _) = next_number(written)?.ok_or(Refusal::Invalid)?;
                let number = u64::try_from(number).map_err(|_| Refusal::Invalid)?;
                range.contains(&number).then(|| format!("{number}\n")).ok_or(Refusal::Invalid)
            }
            Rule::PipeSize => {
                let (number, _) = next_number(written)?.ok_or(Refusal::Invalid)?;
                let size = u64::try_from(number).ok().filter(|size| (1..=1 << 31).contains(size));
                let size = size.ok_or(Refusal::Invalid)?;
                Ok(format!("{}\n", size.max(PAGE).next_power_of_two()))
            }
            Rule::Line(longest) => {
                let line = written.split('\n').next().unwrap_or("");
                // The kernel cuts what is too long, too.
                let end = (0..=line.len().min(*longest)).rev().find(|&i| line.is_char_boundary(i));
                Ok(format!("{}\n", &line[..end.unwrap_or(0)]))
            }
            Rule::Word(words) => {
                let word = words.iter().find(|word| **word == written.trim_end_matches('\n'));
                word.map(|word| format!("{word}\n")).ok_or(Refusal::Invalid)
            }
            Rule::Choice => choice(current, written.trim()),
            Rule::Ignored => Ok(current.to_owned()),
        }
    }
}

/// Replaces the first numbers of `current` by those that are written.
fn numbers(
    current: &str,
    written: &str,
    count: usize,
    range: &RangeInclusive<i64>,
) -> Result<String, Refusal> {
    let mut new = Vec::with_capacity(count);
    let mut rest = written;
    while new.len() < count
        && let Some((number, after)) = next_number(rest)?
    {
        let number = i64::try_from(number).ok().filter(|number| range.contains(number));
        new.push(number.ok_or(Refusal::Invalid)?.to_string());
        rest = after;
    }
    if new.is_empty() {
        return Err(Refusal::Invalid);
    }
    let old = current.split_whitespace().skip(new.len()).map(str::to_owned);
    new.extend(old.take(count - new.len()));
    Ok(format!("{}\n", new.join("\t")))
}

/// The first number of a text and what follows it; none if there are only spaces
/// (`proc_get_long`).
fn next_number(text: &str) -> Result<Option<(i128, &str)>, Refusal> {
    let text = text.trim_start_matches(SPACES);
    if text.is_empty() {
        return Ok(None);
    }
    let end = text.find(SPACES).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.len() > LONGEST_NUMBER {
        return Err(Refusal::Invalid);
    }
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    let (radix, digits) = match digits.strip_prefix('0') {
        Some(hex) if hex.starts_with(['x', 'X']) => (16, &hex[1..]),
        Some(octal) if !octal.is_empty() => (8, octal),
        _ => (10, digits),
    };
    // A second sign is none of a number's.
    let number = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    let number = i128::from(number.ok_or(Refusal::Invalid)?);
    Ok(Some((if negative { -number } else { number }, rest)))
}

/// Moves the brackets of "always [madvise] never".
fn choice(current: &str, word: &str) -> Result<String, Refusal> {
    let bare = |w: &str| w.trim_matches(['[', ']']).to_owned();
    let words: Vec<_> = current.split_whitespace().map(bare).collect();
    if !words.iter().any(|w| w == word) {
        return Err(Refusal::Invalid);
    }
    let mark = |w: String| if w == word { format!("[{w}]") } else { w };
    Ok(format!("{}\n", words.into_iter().map(mark).collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVALID: Result<String, Refusal> = Err(Refusal::Invalid);

    fn taken(text: &str) -> Result<String, Refusal> {
        Ok(text.to_owned())
    }

    #[test]
    fn numbers_are_the_kernels() {
        let rule = Rule::Numbers(1, -1..=200);
        for (written, text) in
            [("7", "7\n"), (" 7\n", "7\n"), ("0x10\n", "16\n"), ("010", "8\n"), ("-1", "-1\n")]
        {
            assert_eq!(rule.apply("60\n", written.as_bytes()), taken(text), "{written:?}");
        }
        assert_eq!(rule.apply("60\n", b"1 2"), taken("1\n"));
        assert_eq!(rule.apply("60\n", b"5\0junk"), taken("5\n"));
        for written in ["", "\n", "x", "7x", "201", "-2", "+7", "0x", "--1", "99999999999999999999"]
        {
            assert_eq!(rule.apply("60\n", written.as_bytes()), INVALID, "{written:?}");
        }
        assert_eq!(rule.apply("60\n", b"\xff"), INVALID);
    }

    #[test]
    fn fewer_numbers_leave_the_others() {
        let rule = Rule::Numbers(4, 0..=100);
        assert_eq!(rule.apply("4\t4\t1\t7\n", b"3"), taken("3\t4\t1\t7\n"));
        assert_eq!(rule.apply("4\t4\t1\t7\n", b"3 4 1 3\n"), taken("3\t4\t1\t3\n"));
        assert_eq!(rule.apply("4\t4\t1\t7\n", b"3 x"), INVALID);
    }

    #[test]
    fn latches_stay() {
        let rule = Rule::Latch(0..=2, 1);
        assert_eq!(rule.apply("2\n", b"0"), taken("0\n"));
        assert_eq!(rule.apply("1\n", b"1"), taken("1\n"));
        assert_eq!(rule.apply("1\n", b"0"), Err(Refusal::Final));
    }

    #[test]
    fn other_rules() {
        let large = Rule::Large(1..=u64::MAX);
        assert_eq!(large.apply("", b"18446744073709551615"), taken("18446744073709551615\n"));
        assert_eq!(large.apply("", b"-1"), INVALID);
        assert_eq!(large.apply("", b"0"), INVALID);
        assert_eq!(Rule::PipeSize.apply("", b"5000"), taken("8192\n"));
        assert_eq!(Rule::Line(4).apply("", "ab\u{e9}\u{e9}\nx".as_bytes()), taken("ab\u{e9}\n"));
        assert_eq!(Rule::Line(9).apply("core\n", b""), taken("\n"));
        assert_eq!(Rule::Word(&["on", "off"]).apply("on\n", b"off\n"), taken("off\n"));
        assert_eq!(Rule::Word(&["on", "off"]).apply("on\n", b"of"), INVALID);
        let thp = "always [madvise] never\n";
        assert_eq!(Rule::Choice.apply(thp, b"never\n"), taken("always madvise [never]\n"));
        assert_eq!(Rule::Choice.apply(thp, b"sometimes"), INVALID);
        assert_eq!(Rule::Ignored.apply("0\n", b"junk"), taken("0\n"));
    }
}
