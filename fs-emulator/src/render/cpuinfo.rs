//! `/proc/cpuinfo`.

use std::collections::HashSet;
use std::fmt::Write;

use crate::view::View;

/// The host's blocks of the visible CPUs.
pub fn cpuinfo(view: &View) -> String {
    chosen(&view.host.text("proc/cpuinfo"), &view.visible_cpus().cpus)
}

/// Picks the blocks of `cpus`; each tells of as many neighbours as there are left. Blocks without a
/// number (older ARM has one about the board) stay.
fn chosen(host: &str, cpus: &[u32]) -> String {
    // Architectures that print one text for all CPUs (s390) have no such blocks.
    if !host.lines().any(|line| field(line, "processor").is_some()) {
        return host.to_owned();
    }
    let blocks = host.split_inclusive("\n\n");
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for block in blocks {
        let number = block.lines().find_map(|line| field(line, "processor")?.parse::<u32>().ok());
        match number {
            Some(n) if cpus.contains(&n) => chosen.push(block),
            Some(_) => {}
            None => others.push(block),
        }
    }
    let packages = Packages::of(&chosen);
    let mut text = String::with_capacity(host.len());
    for block in &chosen {
        let package = value(block, "physical id").unwrap_or("");
        for line in block.split_inclusive('\n') {
            let count = if field(line, "siblings").is_some() {
                Some(packages.threads(package))
            } else if field(line, "cpu cores").is_some() {
                Some(packages.cores(package))
            } else {
                None
            };
            match (count, line.split_once(": ")) {
                (Some(count), Some((name, _))) => {
                    writeln!(text, "{name}: {count}").expect("writing to a string");
                }
                _ => text.push_str(line),
            }
        }
    }
    others.iter().for_each(|block| text.push_str(block));
    text
}

/// What the chosen CPUs make of each physical package: pairs of package and core id.
struct Packages<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Packages<'a> {
    fn of(blocks: &[&'a str]) -> Self {
        let ids = |block| Some((value(block, "physical id")?, value(block, "core id")?));
        Self(blocks.iter().filter_map(|block| ids(block)).collect())
    }

    fn threads(&self, package: &str) -> usize {
        self.0.iter().filter(|(p, _)| *p == package).count()
    }

    fn cores(&self, package: &str) -> usize {
        let cores = self.0.iter().filter(|(p, _)| *p == package).map(|(_, core)| core);
        cores.collect::<HashSet<_>>().len()
    }
}

fn value<'a>(block: &'a str, name: &str) -> Option<&'a str> {
    block.lines().find_map(|line| field(line, name))
}

/// The value of a line "name\t: value" if it has this name.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    rest.trim_start_matches(['\t', ' ']).strip_prefix(':').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cpu: u32, package: u32, core: u32, siblings: u32, cores: u32) -> String {
        format!(
            "processor\t: {cpu}\nmodel name\t: X: 3\nphysical id\t: {package}\n\
             siblings\t: {siblings}\ncore id\t\t: {core}\ncpu cores\t: {cores}\nflags\t\t: a b\n\n"
        )
    }

    #[test]
    fn the_others_are_left_out() {
        let host = (0..8).map(|i| block(i, i / 4, i % 4 / 2, 4, 2)).collect::<String>();
        let expected = block(2, 0, 1, 2, 1) + &block(3, 0, 1, 2, 1) + &block(4, 1, 0, 1, 1);
        assert_eq!(chosen(&host, &[2, 3, 4]), expected);
        assert_eq!(chosen(&host, &(0..8).collect::<Vec<_>>()), host);
    }

    #[test]
    fn other_architectures() {
        let arm = "processor\t: 0\nBogoMIPS\t: 1\n\nprocessor\t: 1\n\nHardware\t: Board\n";
        assert_eq!(chosen(arm, &[1]), "processor\t: 1\n\nHardware\t: Board\n");
        assert_eq!(chosen("# processors : 2\n", &[0]), "# processors : 2\n");
    }
}
