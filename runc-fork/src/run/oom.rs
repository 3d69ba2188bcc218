//! `/proc/PID/oom_score_adj`: whom the kernel kills when memory runs out.
//!
//! The kernel remembers the lowest score that somebody with `CAP_SYS_RESOURCE` over the host gave a process;
//! below that nobody else may go, root inside included (`__set_oom_adj` in fs/proc/base.c). As the engine
//! leaves it, that would be the container's own score, and everything inside that lowers one would fail:
//! a pod of Kubernetes, whose first process containerd gives -998, or `docker run --oom-score-adj -500`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::log;

/// How low processes of a system container may go, as on a machine of its own. -1000 would keep the kernel from
/// ever killing one, even for the container's own limit.
const LOWEST_INSIDE: i32 = -999;

/// Sets the score of a process that has not started its program yet; without one it keeps what it has.
///
/// A system container may then go as low as `LOWEST_INSIDE`, unless it is to be killed before others (a score
/// above 0, as pods of Kubernetes have that are not guaranteed their memory): it has no say in that.
pub fn set_score(pid: i32, score: Option<i32>, system_container: bool) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let write = |score: i32| {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.write_all(score.to_string().as_bytes())
    };
    if system_container {
        let now = || fs::read_to_string(&path).ok()?.trim().parse().ok();
        // Not on a host whose root may not lower scores either, a nested one's included.
        if let Some(score) = score.or_else(now).filter(|score| (LOWEST_INSIDE..=0).contains(score))
            && write(LOWEST_INSIDE).is_ok()
        {
            return without_the_right_to_lower(|| write(score))?
                .with_context(|| format!("write {score} to {path} (process.oomScoreAdj)"));
        }
    }
    let Some(score) = score else { return Ok(()) };
    match write(score) {
        // Lowering needs CAP_SYS_RESOURCE, which a confined host (a nested one, a hardened
        // service) may lack. The container is then only *more* likely to be chosen.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            log::warn(&format!("{path} stays as it is: setting {score} needs CAP_SYS_RESOURCE"));
            Ok(())
        }
        other => other.with_context(|| format!("write {score} to {path} (process.oomScoreAdj)")),
    }
}

/// Runs something without `CAP_SYS_RESOURCE`, so that the kernel does not remember the score.
fn without_the_right_to_lower<T>(run: impl FnOnce() -> T) -> Result<T> {
    let before = capabilities(None).context("read the capabilities of this thread")?;
    let mut reduced = before;
    reduced.effective.remove(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, reduced).context("lay CAP_SYS_RESOURCE aside")?;
    let result = run();
    set_capabilities(None, before).context("take CAP_SYS_RESOURCE up again")?;
    Ok(result)
}
