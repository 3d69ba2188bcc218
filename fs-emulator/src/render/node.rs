//! `/sys/devices/system/node/node0/{meminfo,cpulist,cpumap}`.
//!
//! Where the host has one node, it is the container's machine: its files agree with `/proc/meminfo`
//! and `/proc/cpuinfo`. Of several nodes nobody knows how a limit spreads over them, so they show
//! what they are.

use super::{cpulist, meminfo};
use crate::view::View;

/// The memory of the only node.
pub fn node_meminfo(view: &View) -> String {
    let path = "sys/devices/system/node/node0/meminfo";
    if !is_only(view) {
        return view.host.text(path).to_string();
    }
    meminfo::filled(view, &view.host.text(path), "Node 0 ")
}

/// The CPUs of the only node as a list.
pub fn node_cpulist(view: &View) -> String {
    if !is_only(view) {
        return view.host.text("sys/devices/system/node/node0/cpulist").to_string();
    }
    cpulist::online(view)
}

/// The CPUs of the only node as a mask.
pub fn node_cpumap(view: &View) -> String {
    let native = view.host.text("sys/devices/system/node/node0/cpumap");
    if !is_only(view) {
        return native.to_string();
    }
    mask(&view.visible_cpus().cpus, &native)
}

fn is_only(view: &View) -> bool {
    view.host.text("sys/devices/system/node/online").trim() == "0"
}

/// A bit for each CPU, in as many digits as the native mask has.
fn mask(cpus: &[u32], native: &str) -> String {
    let digits = native.chars().filter(char::is_ascii_hexdigit).count();
    let mut text = String::new();
    for i in (0..digits).rev() {
        let bits = cpus.iter().filter(|&&cpu| cpu as usize / 4 == i).map(|cpu| 1 << (cpu % 4));
        text.push(char::from_digit(bits.sum(), 16).unwrap_or('f'));
        if i > 0 && i % 8 == 0 {
            text.push(',');
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn masks_have_the_native_width() {
        assert_eq!(mask(&[0], "3\n"), "1\n");
        assert_eq!(mask(&[1, 4, 7], "ff\n"), "92\n");
        assert_eq!(mask(&[0, 32], "00000fff,ffffffff\n"), "00000001,00000001\n");
    }
}
