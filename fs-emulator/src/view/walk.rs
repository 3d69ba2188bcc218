//! Counting the threads of a whole cgroup tree by state.

use serde::{Deserialize, Serialize};

use super::cgroup::Level;
use super::host::Host;

/// Most threads whose state is read at once; of more, evenly chosen ones stand for all.
const MAX_THREADS: usize = 1024;
/// Most cgroups that are visited.
const MAX_CGROUPS: usize = 2048;

/// Threads by what they do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// Running or waiting for a CPU.
    pub running: u64,
    /// Sleeping uninterruptibly.
    pub blocked: u64,
}

/// Counts the threads of the cgroup `own` and of all below. `v2` tells which file names them.
pub fn count(host: &Host, own: &Level, v2: bool) -> Tasks {
    let threads = threads(own, v2);
    let step = threads.len().div_ceil(MAX_THREADS).max(1);
    let mut tasks = Tasks::default();
    for tid in threads.iter().step_by(step) {
        match host.record(&format!("proc/{tid}/stat")).as_deref().and_then(state) {
            Some('R') => tasks.running += step as u64,
            Some('D') => tasks.blocked += step as u64,
            _ => {}
        }
    }
    tasks
}

/// Thread ids in the cgroup and in all below.
fn threads(own: &Level, v2: bool) -> Vec<u32> {
    let file = if v2 { "cgroup.threads" } else { "tasks" };
    let mut threads = Vec::new();
    let mut open = vec![own.clone()];
    let mut visited = 0;
    while let Some(level) = open.pop() {
        let text = level.text(file).unwrap_or_default();
        threads.extend(text.lines().filter_map(|tid| tid.parse::<u32>().ok()));
        visited += 1;
        if visited + open.len() < MAX_CGROUPS {
            open.extend(level.children());
        }
    }
    threads
}

/// The state letter in a text of `/proc/PID/stat`; the name before it may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::cgroup::Hierarchy;

    #[test]
    fn the_state_follows_the_last_parenthesis() {
        assert_eq!(state("12 (a) R (b) D 1 2"), Some('D'));
        assert_eq!(state(""), None);
    }

    #[test]
    fn threads_at_any_depth_count() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = root.path().join("cgroup");
        for (tid, state) in [(10, "R"), (11, "S"), (12, "D"), (13, "R")] {
            let proc = root.path().join(format!("proc/{tid}"));
            std::fs::create_dir_all(&proc).unwrap();
            std::fs::write(proc.join("stat"), format!("{tid} (x) {state} 1")).unwrap();
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cgroup.threads"), format!("{tid}\n99\n")).unwrap();
            dir.push("below");
        }
        let own = Hierarchy::new("", &root.path().join("cgroup"), "").levels("");
        let tasks = count(&Host::new(root.path()), &own[0], true);
        assert_eq!(tasks, Tasks { running: 2, blocked: 1 });
    }
}
