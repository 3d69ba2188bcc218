//! `/proc/loadavg`.

use crate::view::View;

/// The container's load averages, running and existing threads, and the last pid that the reader's
/// pid namespace is known to have given (its own: it was started a moment ago in most cases).
pub fn loadavg(view: &View) -> String {
    let load = *view.container.load.lock().unwrap_or_else(|e| e.into_inner());
    let tids = view.reader_tids();
    let known = view.container.last_pid(tids.get(1).copied().unwrap_or(0));
    // A reader of the container's own pid namespace may be told of others in it.
    let last_pid = match tids.len() {
        0..=2 => known,
        _ => tids[tids.len() - 1],
    };
    let running = load.tasks().running.max(1);
    let threads = threads(view).max(running);
    let [one, five, fifteen] = load.averages().map(|n| format!("{}.{:02}", n / 100, n % 100));
    format!("{one} {five} {fifteen} {running}/{threads} {last_pid}\n")
}

/// Threads of the container; 0 if its cgroup does not tell.
pub fn threads(view: &View) -> u64 {
    let pids = view.levels("pids");
    pids.list.first().and_then(|own| own.number("pids.current")).unwrap_or(0)
}
