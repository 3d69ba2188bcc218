//! From the engine's profile to the one of a system container. Pure.
//!
//! Engines compute their default profile from the capabilities that they believe the container
//! has, so it lacks `mount`, `unshare` and the like. Those calls must come back, while what a
//! *user* took away must stay away. A profile alone doesn't say who left a call out, so:
//!
//! - An explicit rule that denies a call is the user's and stays, except the few rules that the
//!   engines' own templates are known to contain ([`EngineRule`]).
//! - A call that an allow list merely lacks comes back if the list is an engine's template
//!   ([`is_template`]: broad, and with the templates' tests of `personality`), if the call is in
//!   our table ([`crate::grants`]), and if the template shows that the capability which it asks
//!   for was not given. Where it shows that it *was* given (`--cap-add SYS_ADMIN`: `sethostname`
//!   is allowed), the engine would have put the call in, so the user took it out: it stays out.
//! - A call that isn't in the table never comes back: `mkdir` deleted from a copy of the default
//!   profile stays deleted.
//! - An allow list that is no engine's template is the user's own and is left exactly as it is.
//! - A profile that allows by default only has denials, and all of them stay.
//!
//! What can't be told: `mount` deleted from a copy of the template and `mount` not put in by the
//! engine look the same. Who wants it denied says so with a rule (`SCMP_ACT_ERRNO`).
//!
//! Argument tests (of `personality`, `socket`...) are rules as all others and stay.

use std::collections::HashSet;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompOperator, LinuxSyscall,
};

use crate::Warning;
use crate::grants::{Capability, GRANTS, Gate, RULED};

/// What [`merge`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The profile to compile; `None` allows everything.
    pub profile: Option<LinuxSeccomp>,
    /// The calls that were added, in the order of the table.
    pub granted: Vec<&'static str>,
    /// What the user should know.
    pub warnings: Vec<Warning>,
}

/// The profile of a system container, or with `system_container` false `profile` as it is.
pub fn merge(profile: Option<&LinuxSeccomp>, system_container: bool) -> Merged {
    let mut merged =
        Merged { profile: profile.cloned(), granted: Vec::new(), warnings: Vec::new() };
    let Some(profile) = &mut merged.profile else {
        return merged;
    };
    if !system_container || !denies(profile.default_action()) {
        return merged;
    }
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    if is_template(&rules) {
        merged.granted = grant(&mut rules, profile.default_errno_ret());
        profile.set_syscalls(Some(rules));
    } else {
        let missing = missing_calls(&rules);
        if !missing.is_empty() {
            merged.warnings.push(Warning::new(format!(
                "linux.seccomp is an allow list of its own and is left as it is; it denies calls \
                 that a system container needs: {}",
                missing.join(", ")
            )));
        }
    }
    merged
}

/// Whether `action` keeps a call from being executed.
pub(crate) fn denies(action: Action) -> bool {
    !matches!(action, Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace)
}

/// What the rules say about `name` whatever its arguments: `None` if they say nothing, disagree, or
/// look at the arguments.
pub(crate) fn plain_action(rules: &[LinuxSyscall], name: &str) -> Option<Action> {
    let mut mentions = rules.iter().filter(|rule| mentions(rule, name));
    let first = mentions.next().filter(|rule| has_no_tests(rule))?;
    let agrees = |rule: &LinuxSyscall| rule.action() == first.action() && has_no_tests(rule);
    mentions.all(agrees).then_some(first.action())
}

fn mentions(rule: &LinuxSyscall, name: &str) -> bool {
    rule.names().iter().any(|n| n == name)
}

fn has_no_tests(rule: &LinuxSyscall) -> bool {
    rule.args().as_ref().is_none_or(Vec::is_empty)
}

/// Names that some rule allows whatever their arguments.
fn plainly_allowed(rules: &[LinuxSyscall]) -> HashSet<&str> {
    let allowing = rules.iter().filter(|rule| !denies(rule.action()) && has_no_tests(rule));
    allowing.flat_map(|rule| rule.names()).map(String::as_str).collect()
}

/// Whether an allow list is the default profile of Docker, Podman, containerd or CRI-O, or a copy
/// of one that somebody edited.
///
/// They all descend from one, which is broad (over 300 names; lists made by tracing a program have
/// a fraction of that) and lets `personality` through for a handful of values only.
fn is_template(rules: &[LinuxSyscall]) -> bool {
    const BROAD: usize = 200;
    let tests_personality = rules
        .iter()
        .any(|rule| mentions(rule, "personality") && !denies(rule.action()) && !has_no_tests(rule));
    tests_personality && plainly_allowed(rules).len() >= BROAD
}

fn missing_calls(rules: &[LinuxSyscall]) -> Vec<&'static str> {
    let allowed = plainly_allowed(rules);
    let rows = GRANTS.iter().filter(|row| !matches!(row.gate, Gate::Like(_)));
    rows.map(|row| row.name).filter(|name| !allowed.contains(name)).collect()
}

/// Adds the calls of the table to the rules of a template; returns their names.
fn grant(rules: &mut Vec<LinuxSyscall>, default_errno: Option<u32>) -> Vec<&'static str> {
    let allowed: HashSet<String> = plainly_allowed(rules).into_iter().map(str::to_owned).collect();
    let given =
        |capability: &Capability| capability.witnesses.iter().any(|call| allowed.contains(*call));
    let of_engine: Vec<bool> =
        rules.iter().map(|rule| EngineRule::of(rule, default_errno).is_some()).collect();
    let mut granted: Vec<&'static str> = Vec::new();
    for row in GRANTS {
        let wanted = match row.gate {
            Gate::Needs(capability) => !given(capability),
            Gate::Never => true,
            Gate::Like(older) => allowed.contains(older) || granted.contains(&older),
        };
        if !wanted || granted.contains(&row.name) {
            continue;
        }
        let was_ruled = take_out(row.name, rules, &of_engine);
        // Every engine but CRI-O gives this capability, and CRI-O's template denies by rule: a
        // mere absence is the doing of somebody who dropped the capability or edited the list.
        let taken_away = matches!(row.gate, Gate::Needs(c) if c.is_usual) && !was_ruled;
        // Whatever other rule there is for it is the user's.
        if !taken_away && !rules.iter().any(|rule| mentions(rule, row.name)) {
            granted.push(row.name);
        }
    }
    if !granted.is_empty() {
        let mut rule = LinuxSyscall::default();
        rule.set_names(granted.iter().map(|&name| name.to_owned()).collect());
        rule.set_action(Action::ScmpActAllow);
        rules.push(rule);
    }
    granted
}

/// Takes `name` out of the rules that are the engine's; true if it was in one. A rule that is left
/// without names does nothing; it stays, so that messages about later rules count as the user does.
fn take_out(name: &str, rules: &mut [LinuxSyscall], of_engine: &[bool]) -> bool {
    let mut found = false;
    for (rule, _) in rules.iter_mut().zip(of_engine).filter(|(_, of_engine)| **of_engine) {
        if mentions(rule, name) {
            found = true;
            let kept = rule.names().iter().filter(|n| *n != name).cloned().collect();
            rule.set_names(kept);
        }
    }
    found
}

/// The rules by which the engines' templates restrict calls for want of a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EngineRule {
    /// Docker, containerd: `clone` is allowed if it asks for no namespace.
    CloneWithoutNamespaces,
    /// Docker, containerd: `clone3`, whose flags a filter can't see, does not exist.
    NoClone3,
    /// Podman, CRI-O: the default is `ENOSYS`, so what is withheld is denied with `EPERM` by one
    /// rule for each capability.
    Withheld,
}

impl EngineRule {
    fn of(rule: &LinuxSyscall, default_errno: Option<u32>) -> Option<Self> {
        let only = |name: &str| matches!(rule.names().as_slice(), [n] if n == name);
        let errno = match rule.action() {
            Action::ScmpActErrno => Some(rule.errno_ret().unwrap_or(EPERM)),
            _ => None,
        };
        if only("clone") && rule.action() == Action::ScmpActAllow && tests_namespaces(rule) {
            Some(Self::CloneWithoutNamespaces)
        } else if only("clone3") && errno == Some(ENOSYS) && has_no_tests(rule) {
            Some(Self::NoClone3)
        } else if default_errno == Some(ENOSYS) && errno == Some(EPERM) && has_no_tests(rule) {
            withholds(rule).then_some(Self::Withheld)
        } else {
            None
        }
    }
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Whether the rule's only test is that no flag for a new namespace is set.
fn tests_namespaces(rule: &LinuxSyscall) -> bool {
    /// `CLONE_NEW*` of sched.h: time, mount, cgroup, uts, ipc, user, pid, net.
    const NAMESPACES: u64 = 0x7e02_0080;
    match rule.args().as_deref() {
        Some([test]) => {
            test.op() == LinuxSeccompOperator::ScmpCmpMaskedEq
                && test.value() & !NAMESPACES == 0
                && test.value_two().unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Whether the rule names what a template withholds together for want of one capability. Two names
/// of a group are asked for, so that a user's rule for a single call is not mistaken for it.
fn withholds(rule: &LinuxSyscall) -> bool {
    RULED.iter().any(|capability| {
        let calls = capability.witnesses;
        let named = calls.iter().filter(|call| mentions(rule, call)).count();
        named >= calls.len().min(2)
    })
}
