//! Lines of a `schemata` file: `RESOURCE:DOMAIN=VALUE;DOMAIN=VALUE...`, such as `L3:0=7f0;1=1f`.

use oci_spec::runtime::LinuxIntelRdt;

/// What a class is to have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Schemata {
    /// Lines of `l3CacheSchema` and `memBwSchema`.
    pub(super) first: Vec<String>,
    /// Lines of `schemata`, which are written after the others.
    pub(super) last: Vec<String>,
    /// `l3CacheSchema` is given.
    pub(super) l3: bool,
    /// `memBwSchema` is given.
    pub(super) memory: bool,
}

impl Schemata {
    pub(super) fn of(wanted: &LinuxIntelRdt) -> Schemata {
        let l3 = wanted.l3_cache_schema().as_deref().unwrap_or_default();
        let memory = wanted.mem_bw_schema().as_deref().unwrap_or_default();
        // Of two lines of memory bandwidth, that of the field for it counts.
        let cache = l3.lines().filter(|line| memory.is_empty() || !line.trim().starts_with("MB:"));
        let lines = |line: &str| line.lines().map(str::to_owned).collect::<Vec<_>>();
        let mut first: Vec<String> = cache.map(str::to_owned).collect();
        first.extend(lines(memory));
        let last = wanted.schemata().iter().flatten().flat_map(|line| lines(line)).collect();
        Schemata { first, last, l3: !l3.is_empty(), memory: !memory.is_empty() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.last.is_empty()
    }

    /// The first line that asks for something else than what a file says; of resources and domains that
    /// no line speaks of, anything is right. `step` is what the kernel rounds bandwidth up to.
    pub(super) fn first_difference(&self, file: &str, step: u64) -> Option<&str> {
        // Of what is asked for twice, the later counts.
        let asked: Vec<&str> = self.first.iter().chain(&self.last).map(String::as_str).collect();
        let overruled = |index: usize, resource: &str, domain: &str| {
            asked[index + 1..].iter().any(|later| value(later, resource, domain).is_some())
        };
        let differs = |(index, line): (usize, &&str)| {
            let Some((resource, domains)) = line.split_once(':') else { return true };
            let resource = resource.trim();
            domains.split(';').filter(|part| !part.trim().is_empty()).any(|part| {
                let Some((domain, wanted)) = part.split_once('=') else { return true };
                let now = file.lines().find_map(|line| value(line, resource, domain.trim()));
                !overruled(index, resource, domain.trim())
                    && !now.is_some_and(|now| same(resource, wanted.trim(), now, step))
            })
        };
        asked.iter().enumerate().find(|pair| differs(*pair)).map(|(_, line)| *line)
    }
}

/// The value that a line has for a domain of a resource. The kernel writes both with spaces before.
fn value<'a>(line: &'a str, resource: &str, domain: &str) -> Option<&'a str> {
    let (_, domains) = line.split_once(':').filter(|(name, _)| name.trim() == resource)?;
    domains.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        (name.trim() == domain).then_some(value.trim())
    })
}

/// Masks of caches are hexadecimal, with as many zeros as one likes; the rest is decimal.
fn same(resource: &str, wanted: &str, now: &str, step: u64) -> bool {
    if resource.starts_with('L') {
        let mask = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        return mask(wanted).is_some_and(|wanted| mask(now) == Some(wanted));
    }
    match (wanted.parse::<u64>(), now.parse::<u64>()) {
        (Ok(wanted), Ok(now)) => {
            wanted == now || wanted.checked_next_multiple_of(step) == Some(now)
        }
        _ => wanted == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemata(json: &str) -> Schemata {
        Schemata::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn lines_of_the_fields() {
        let both = schemata(
            r#"{"l3CacheSchema": "L3:0=f\nMB:0=10\nL2:0=3", "memBwSchema": "MB:0=20",
                "schemata": ["L3:0=3", "MB:0=30"]}"#,
        );
        assert_eq!(both.first, ["L3:0=f", "L2:0=3", "MB:0=20"]);
        assert_eq!(both.last, ["L3:0=3", "MB:0=30"]);
        assert!(both.l3 && both.memory);
        assert_eq!(
            schemata(r#"{"l3CacheSchema": "L3:0=f\nMB:0=10"}"#).first,
            ["L3:0=f", "MB:0=10"]
        );
        assert!(schemata(r#"{"closID": "a", "l3CacheSchema": ""}"#).is_empty());
    }

    #[test]
    fn what_a_class_has_is_compared() {
        // As Linux writes it.
        let now = "    MB:0= 30;1=100\n    L3:0=007f0;1=0001f\n";
        let differs = |fields: &str| {
            let asked = schemata(&format!("{{{fields}}}"));
            asked.first_difference(now, 10).map(str::to_owned)
        };
        for same in [
            r#""l3CacheSchema": "L3:0=7f0;1=1f""#,
            r#""l3CacheSchema": "L3:1=0x1f;;0=07F0;""#,
            r#""memBwSchema": "MB: 1 = 100""#,
            // Rounded up by the kernel.
            r#""memBwSchema": "MB:0=25""#,
            // Overruled by a later line.
            r#""l3CacheSchema": "L3:0=1", "schemata": ["L3:0=7f0"]"#,
        ] {
            assert_eq!(differs(same), None, "{same}");
        }
        for (other, line) in [
            (r#""l3CacheSchema": "L3:0=7f0;1=f""#, "L3:0=7f0;1=f"),
            (r#""l3CacheSchema": "L3:2=1f""#, "L3:2=1f"),
            (r#""memBwSchema": "MB:0=20""#, "MB:0=20"),
            (r#""schemata": ["L3:0=7f0", "L2:0=1"]"#, "L2:0=1"),
            (r#""schemata": ["L3"]"#, "L3"),
            (r#""schemata": ["L3:0"]"#, "L3:0"),
        ] {
            assert_eq!(differs(other).as_deref(), Some(line), "{other}");
        }
    }
}
