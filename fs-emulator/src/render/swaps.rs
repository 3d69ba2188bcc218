//! `/proc/swaps`.

use crate::view::View;
use crate::view::memory::Memory;

/// What may be swapped as one device without a name; nothing if nothing may.
pub fn swaps(view: &View) -> String {
    table(&view.memory())
}

fn table(memory: &Memory) -> String {
    let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
    if memory.swap_total > 0 {
        let tab = |kib: u64| if kib < 10_000_000 { "\t" } else { "" };
        let (size, used) = (memory.swap_total / 1024, memory.swap_used / 1024);
        text += &format!("{:<40}virtual\t\t{size}\t{}{used}\t{}-2\n", "none", tab(size), tab(used));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_if_swap_is_allowed() {
        let mut memory = Memory {
            total: 1 << 30,
            used: 0,
            swap_total: 0,
            swap_used: 0,
            stat: Default::default(),
            huge_total: 0,
            huge_used: 0,
        };
        assert_eq!(table(&memory).lines().count(), 1);
        memory.swap_total = 1 << 20;
        memory.swap_used = 2048;
        let text = table(&memory);
        let line: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(line, ["none", "virtual", "1024", "2", "-2"]);
    }
}
