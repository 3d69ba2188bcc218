//! AppArmor profiles and SELinux labels of a process, where the host has these modules.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, openat2};

use crate::plan::ProcessPlan;

/// Whether the kernel runs with AppArmor.
pub fn apparmor_is_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Whether the kernel runs with SELinux and a policy.
pub fn selinux_is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Refuses what this host cannot do, in runc's words.
pub fn check(plan: &ProcessPlan, mount_label: Option<&str>) -> Result<()> {
    // With runc the first mount of a tmpfs fails there.
    ensure!(
        mount_label.is_none() || selinux_is_enabled(),
        "linux.mountLabel: selinux label is specified in config, but selinux is disabled or not supported"
    );
    if let Some(profile) = &plan.apparmor_profile {
        ensure!(
            apparmor_is_enabled() || profile == "unconfined",
            "process.apparmorProfile: {profile:?}: apparmor is not enabled on the host"
        );
    }
    ensure!(
        plan.selinux_label.is_none() || selinux_is_enabled(),
        "process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported"
    );
    Ok(())
}

/// Sets what the next execve(2) of this process takes over.
pub fn apply(plan: &ProcessPlan) -> Result<()> {
    if let Some(profile) = plan.apparmor_profile.as_ref().filter(|_| apparmor_is_enabled()) {
        let text = format!("exec {profile}");
        // The second name is for kernels before 5.8, where there is one module only.
        write("attr/apparmor/exec", &text)
            .or_else(|_| write("attr/exec", &text))
            .with_context(|| format!("apply the AppArmor profile {profile:?}"))?;
    }
    if let Some(label) = &plan.selinux_label {
        write("attr/exec", label).with_context(|| format!("apply the SELinux label {label:?}"))?;
    }
    Ok(())
}

/// Writes to the procfs that is mounted on /proc and nowhere else (CVE-2019-16884).
fn write(file: &str, text: &str) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat2(CWD, "/proc", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .context("open /proc")?;
    ensure!(fstatfs(&proc)?.f_type == PROC_SUPER_MAGIC, "/proc in the container is no procfs");
    let path = format!("{}/{file}", std::process::id());
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = openat2(&proc, path.as_str(), flags, Mode::empty(), resolve)
        .with_context(|| format!("open /proc/{path}"))?;
    rustix::io::write(&opened, text.as_bytes()).with_context(|| format!("write /proc/{path}"))?;
    Ok(())
}
