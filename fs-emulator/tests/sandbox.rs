//! What the running daemon may do. Needs root.

mod support;

use std::fs;

use support::{Cgroup, Place, container, is_root};

#[test]
fn threads_that_others_talk_to_have_no_rights() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("sandbox"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("c", 1, &cgroup));
    fs::read(place.path(&dir).join("proc/stat")).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    let own = u64::from_str_radix(own.trim(), 16).unwrap();
    let mut confined = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap() {
        let task = task.unwrap();
        let text = fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim_start_matches(':').trim().to_owned()
        };
        let name = field("Name");
        let is_main = task.file_name().to_str() == Some(&daemon.child.id().to_string());
        // The one that waits for signals, and the one that starts another holder.
        if is_main || name.starts_with("holder") {
            continue;
        }
        // CAP_DAC_READ_SEARCH, or CAP_SYS_RESOURCE, and no way to get more.
        let kept = if name == "triggers" { 1 << 24 } else { 1 << 2 };
        let capability = format!("{:016x}", kept & own);
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(field(set), capability, "{name}: {set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{name}: {set}");
        }
        assert_eq!(field("NoNewPrivs"), "1", "{name}");
        confined.push(name);
    }
    for name in ["fuser-0", "fuser-1", "lines", "load", "accept", "call", "pressure", "triggers"] {
        assert!(confined.iter().any(|n| n == name), "{name} is not among {confined:?}");
    }
    daemon.remove("c");
    daemon.terminate();
}
