//! Our own part of a program, which runs before that of libseccomp.

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};

use crate::abi::{Abi, X32_BIT};
use crate::bpf::{ARCH, Instruction, JEQ_K, JGE_K, JGT_K, JSET_K, NR, RET_ERRNO, unless, when};
use crate::compile::{action_of, native_and_listed};
use crate::merge::{Merged, denies, plain_action};
use crate::newer;
use crate::traps::{TRAPS, Trap};
use crate::{Error, Warning};

const ENOSYS: u32 = 38;

/// What the prologue says about one ABI.
struct Part {
    abi: Abi,
    /// Number and trap.
    traps: Vec<(u32, &'static Trap)>,
    /// Number and action (`SECCOMP_RET_*`) of calls that libseccomp doesn't know.
    newer: Vec<(u32, u32)>,
    /// Calls above this number are newer than the profile and don't exist for the container...
    last: Option<u32>,
    /// ...but for these, which were granted on top of it.
    granted: Vec<u32>,
}

/// The prologue for `merged`; control runs off its end to the body.
pub(crate) fn prologue(
    merged: &Merged,
    traps: bool,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Instruction>, Error> {
    let newer = newer_calls(merged.profile.as_ref(), warnings)?;
    let parts: Vec<Part> =
        abis(merged).into_iter().map(|abi| part(abi, merged, traps, &newer)).collect();
    if parts.iter().all(Part::is_empty) {
        return Ok(Vec::new());
    }
    let find = |abi| parts.iter().find(|part| part.abi == abi);
    let mut code = Vec::new();
    for part in parts.iter().filter(|part| part.abi != Abi::X32).rev() {
        let mut block = vec![Instruction::load(NR)];
        // Calls of x32 come with the architecture of x86_64 and a bit in the number.
        if part.abi == Abi::X86_64 {
            let x32 = find(Abi::X32).map(Part::code).unwrap_or_default();
            let native = part.code();
            let mut x32_block = x32;
            x32_block.push(Instruction::skip(native.len() as u32));
            block.extend(when(JSET_K, X32_BIT, x32_block));
            block.extend(native);
        } else {
            block.extend(part.code());
        }
        // What follows is for other architectures.
        block.push(Instruction::skip(code.len() as u32));
        let mut guarded = when(JEQ_K, part.abi.audit_arch(), block);
        guarded.extend(code);
        code = guarded;
    }
    code.insert(0, Instruction::load(ARCH));
    Ok(code)
}

/// The ABIs that the body distinguishes: calls of others are for the body to refuse.
fn abis(merged: &Merged) -> Vec<Abi> {
    match &merged.profile {
        None => Abi::of_this_machine().to_vec(),
        Some(profile) => {
            let listed = native_and_listed(profile);
            let mut abis: Vec<Abi> = listed.into_iter().filter_map(Abi::from_oci).collect();
            abis.sort_by_key(|abi| *abi as u8);
            abis.dedup();
            abis
        }
    }
}

fn rules(profile: Option<&LinuxSeccomp>) -> &[LinuxSyscall] {
    profile.and_then(|p| p.syscalls().as_deref()).unwrap_or_default()
}

/// Whether every call of `name` is executed, so that it may go to the broker instead.
fn is_allowed(profile: Option<&LinuxSeccomp>, name: &str) -> bool {
    let Some(profile) = profile else { return true };
    let rules = rules(Some(profile));
    match plain_action(rules, name) {
        Some(action) => !denies(action),
        None => {
            let mentioned = rules.iter().any(|r| r.names().iter().any(|n| n == name));
            !mentioned && !denies(profile.default_action())
        }
    }
}

/// Name and action of the calls that libseccomp doesn't know and that the profile allows or denies
/// whatever their arguments.
fn newer_calls(
    profile: Option<&LinuxSeccomp>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<(String, u32)>, Error> {
    let mut calls: Vec<(String, u32)> = Vec::new();
    let rules = rules(profile);
    for name in rules.iter().flat_map(|rule| rule.names()) {
        if newer::number(name).is_none()
            || libseccomp::ScmpSyscall::from_name(name).is_ok()
            || calls.iter().any(|(known, _)| known == name)
        {
            continue;
        }
        match plain_action(rules, name) {
            Some(_) => {
                let rule = rules.iter().find(|rule| rule.names().contains(name));
                let action = rule.map_or(Ok(0), |r| action_of(r.action(), r.errno_ret()))?;
                calls.push((name.clone(), action));
            }
            None => warnings.push(Warning::new(format!(
                "linux.seccomp: the rules for {name} are left out: the installed libseccomp does \
                 not know the call"
            ))),
        }
    }
    Ok(calls)
}

fn part(abi: Abi, merged: &Merged, traps: bool, newer: &[(String, u32)]) -> Part {
    let profile = merged.profile.as_ref();
    let trapped = TRAPS.iter().filter(|trap| traps && is_allowed(profile, trap.name));
    let traps: Vec<_> =
        trapped.filter_map(|trap| abi.number(trap.name).map(|nr| (nr, trap))).collect();
    let newer = newer.iter().filter_map(|(name, action)| abi.number(name).map(|nr| (nr, *action)));
    let newer: Vec<_> = newer.collect();
    let last = last_known(abi, merged);
    let mut granted: Vec<u32> = merged.granted.iter().filter_map(|name| abi.number(name)).collect();
    granted.retain(|number| {
        last.is_some_and(|last| *number > last) && !newer.iter().any(|(n, _)| n == number)
    });
    Part { abi, traps, newer, last, granted }
}

/// The highest number among the calls that the profile names, as runc sees it: who wrote the
/// profile decided about the calls up to that one. A program that gets `EPERM` for a call that its
/// C library tries first gives up; with `ENOSYS` it takes the older call.
///
/// `None` if the profile allows by default, or already answers `ENOSYS`.
fn last_known(abi: Abi, merged: &Merged) -> Option<u32> {
    let profile = merged.profile.as_ref()?;
    if !denies(profile.default_action()) || profile.default_errno_ret() == Some(ENOSYS) {
        return None;
    }
    let granted = |name: &str| merged.granted.contains(&name);
    let names = rules(Some(profile)).iter().flat_map(|rule| rule.names());
    names.filter(|name| !granted(name)).filter_map(|name| abi.number(name)).max()
}

impl Part {
    fn is_empty(&self) -> bool {
        self.traps.is_empty() && self.newer.is_empty() && self.last.is_none()
    }

    /// Expects the number in the accumulator, and leaves what it likes there.
    fn code(&self) -> Vec<Instruction> {
        let mut code = Vec::new();
        let bit = if self.abi == Abi::X32 { X32_BIT } else { 0 };
        // Above all older calls, so that those pass one test instead of many.
        let mut high = Vec::new();
        for (number, action) in &self.newer {
            high.extend(when(JEQ_K, *number, vec![Instruction::ret(*action)]));
        }
        if !high.is_empty() {
            code.extend(when(JGE_K, newer::FIRST | bit, high));
        }
        if let Some(last) = self.last {
            code.extend(self.newer_than(last));
        }
        // Last, as their tests load arguments over the number: each leaves for the body.
        let mut tests: Vec<Instruction> = Vec::new();
        for (number, trap) in self.traps.iter().rev() {
            let mut block = trap.when.code();
            block.push(Instruction::skip(tests.len() as u32));
            let mut test = when(JEQ_K, *number, block);
            test.extend(tests);
            tests = test;
        }
        code.extend(tests);
        code
    }

    /// `ENOSYS` for numbers above `last`; the granted ones are for the body.
    fn newer_than(&self, last: u32) -> Vec<Instruction> {
        let mut block = vec![Instruction::ret(RET_ERRNO | ENOSYS)];
        for number in &self.granted {
            block = unless(JEQ_K, *number, block);
        }
        when(JGT_K, last, block)
    }
}
