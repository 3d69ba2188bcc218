//! From a merged profile to a program: our prologue, then what libseccomp makes of the rules.

use std::fs::File;
use std::io::{self, Read, Seek};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};
use sysbox_kernel::seccomp::{FLAG_LOG, FLAG_SPEC_ALLOW};

use crate::bpf::{Instruction, RET_ALLOW};
use crate::prologue::prologue;
use crate::{Error, Merged, Program, Warning, newer};

/// Highest error number that the kernel hands to a caller (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
const EPERM: u32 = 1;

/// Compiles `merged`, with the traps of [`crate::TRAPS`] if `traps`. Does not use the cache.
///
/// # Errors
///
/// A value that the kernel or libseccomp can't take; the error names the field.
pub fn compile(merged: &Merged, traps: bool) -> Result<(Program, Vec<Warning>), Error> {
    let mut warnings = Vec::new();
    if let Some(profile) = &merged.profile {
        check_notify(profile)?;
    }
    // There is one listener: the broker has it, or the profile's agent.
    let traps = traps && !merged.profile.as_ref().is_some_and(wants_own_listener);
    let mut bytes = Program::encode(&prologue(merged, traps, &mut warnings)?);
    match &merged.profile {
        None => bytes.extend(Program::encode(&[Instruction::ret(RET_ALLOW)])),
        Some(profile) => bytes.extend(body(profile, &mut warnings)?),
    }
    let program = Program::from_bytes(&bytes)?.with_flags(flags(merged.profile.as_ref()));
    Ok((program, warnings))
}

/// The `SECCOMP_FILTER_FLAG_*` bits that a profile asks for.
///
/// A profile without flags gets `SPEC_ALLOW`, as with runc. `TSYNC` has no use here (the filter is
/// loaded by a single thread) and `WAIT_KILLABLE_RECV` belongs to listeners, which always have it.
pub(crate) fn flags(profile: Option<&LinuxSeccomp>) -> u32 {
    let Some(flags) = profile.and_then(|p| p.flags().as_ref()) else {
        return FLAG_SPEC_ALLOW;
    };
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    flags.iter().map(bit).fold(0, |all, bit| all | bit)
}

/// The architectures that a filter covers: the machine's own, always, and those listed.
pub(crate) fn native_and_listed(profile: &LinuxSeccomp) -> Vec<Arch> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    [Arch::ScmpArchNative].iter().chain(listed).copied().collect()
}

/// `SECCOMP_RET_*` value of an action.
pub(crate) fn action_of(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    let checked = errno_of(errno, "linux.seccomp.syscalls[].errnoRet")?;
    Ok(action.as_u32(Some(checked)))
}

/// Whether a profile hands calls to an agent of the user's (`SCMP_ACT_NOTIFY`).
pub fn wants_own_listener(profile: &LinuxSeccomp) -> bool {
    let mut rules = profile.syscalls().iter().flatten();
    rules.any(|rule| rule.action() == Action::ScmpActNotify)
}

/// As runc: not by default, and not for the call by which the listener is handed over; and there must
/// be somebody to listen.
fn check_notify(profile: &LinuxSeccomp) -> Result<(), Error> {
    let refuse = |field: String, reason: &str| Err(Error::Profile { field, reason: reason.into() });
    if profile.default_action() == Action::ScmpActNotify {
        let reason = "SCMP_ACT_NOTIFY cannot be used as default action";
        return refuse("linux.seccomp.defaultAction".into(), reason);
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let asks = |rule: &&LinuxSyscall| rule.action() == Action::ScmpActNotify;
    if rules.iter().filter(asks).any(|rule| rule.names().iter().any(|name| name == "write")) {
        let reason = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
        return refuse("linux.seccomp.syscalls".into(), reason);
    }
    let nobody = profile.listener_path().as_ref().is_none_or(|path| path.as_os_str().is_empty());
    if wants_own_listener(profile) && nobody {
        let reason = "is missing: SCMP_ACT_NOTIFY needs the socket of an agent";
        return refuse("linux.seccomp.listenerPath".into(), reason);
    }
    Ok(())
}

fn body(profile: &LinuxSeccomp, warnings: &mut Vec<Warning>) -> Result<Vec<u8>, Error> {
    let default = scmp_action(
        profile.default_action(),
        profile.default_errno_ret(),
        "linux.seccomp.defaultErrnoRet",
    )?;
    let mut filter = ScmpFilterContext::new(default).map_err(failed("the default action"))?;
    // A binary tree over the numbers instead of one long list.
    filter.set_ctl_optimize(2).map_err(failed("optimisation"))?;
    for arch in native_and_listed(profile) {
        filter.add_arch(scmp_arch(arch)).map_err(failed(arch))?;
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        add_rule(&mut filter, default, index, rule, warnings)?;
    }
    Ok(export(&filter)?)
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    default: ScmpAction,
    index: usize,
    rule: &LinuxSyscall,
    warnings: &mut Vec<Warning>,
) -> Result<(), Error> {
    let field = format!("linux.seccomp.syscalls[{index}]");
    let action = scmp_action(rule.action(), rule.errno_ret(), &format!("{field}.errnoRet"))?;
    if action == default {
        return Ok(()); // libseccomp refuses a rule that changes nothing.
    }
    let tests = rule.args().as_deref().unwrap_or_default();
    let tests = tests.iter().enumerate().map(|(n, test)| comparison(&field, n, test));
    let tests = tests.collect::<Result<Vec<_>, _>>()?;
    for name in rule.names() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            if newer::number(name).is_none() {
                warnings.push(Warning::new(format!(
                    "{field}: there is no system call {name:?} on this system; left out"
                )));
            }
            continue; // A newer call: the prologue has it.
        };
        let added = match tests.as_slice() {
            [] => filter.add_rule(action, call).map(drop),
            tests if repeats_an_argument(rule) => tests
                .iter()
                .try_for_each(|test| filter.add_rule_conditional(action, call, &[*test]).map(drop)),
            tests => filter.add_rule_conditional(action, call, tests).map(drop),
        };
        added.map_err(failed(format!("{field}, call {name}")))?;
    }
    Ok(())
}

/// Tests of one rule hold together ("and"); libseccomp takes only one for each argument, and the
/// engines write several for one argument when they mean "or".
fn repeats_an_argument(rule: &LinuxSyscall) -> bool {
    let tests = rule.args().as_deref().unwrap_or_default();
    let mut seen = 0u8;
    tests.iter().any(|test| {
        let bit = 1 << test.index();
        let again = seen & bit != 0;
        seen |= bit;
        again
    })
}

fn comparison(field: &str, n: usize, test: &LinuxSeccompArg) -> Result<ScmpArgCompare, Error> {
    let index = u32::try_from(test.index()).ok().filter(|index| *index < 6).ok_or_else(|| {
        let reason = format!("{} is no argument: a call has six, 0 to 5", test.index());
        Error::Profile { field: format!("{field}.args[{n}].index"), reason }
    })?;
    let (op, datum) = match test.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, test.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, test.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, test.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, test.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, test.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, test.value()),
        Operator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(test.value()), test.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(index, op, datum))
}

fn scmp_action(action: Action, errno: Option<u32>, field: &str) -> Result<ScmpAction, Error> {
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(errno_of(errno, field)? as i32),
        Action::ScmpActTrace => ScmpAction::Trace(errno_of(errno, field)? as u16),
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    })
}

fn errno_of(errno: Option<u32>, field: &str) -> Result<u32, Error> {
    match errno.unwrap_or(EPERM) {
        errno if errno <= MAX_ERRNO => Ok(errno),
        errno => Err(Error::Profile {
            field: field.to_owned(),
            reason: format!("{errno} is no error number (0 to {MAX_ERRNO})"),
        }),
    }
}

fn scmp_arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, io::Error> {
    let mut memory = File::from(memfd_create(c"seccomp", MemfdFlags::CLOEXEC)?);
    filter.export_bpf(&memory).map_err(io::Error::other)?;
    memory.rewind()?;
    let mut bytes = Vec::new();
    memory.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn failed(what: impl ToString) -> impl FnOnce(libseccomp::error::SeccompError) -> Error {
    let what = what.to_string();
    move |source| Error::Libseccomp { what, source }
}
