//! Device rules as an eBPF program.
//!
//! The kernel calls the program with `struct bpf_cgroup_dev_ctx { access_type, major, minor }`,
//! where `access_type` is the accesses in the upper and the kind of device in the lower half, and
//! takes 1 for "allowed". The rules stand in the program last to first, each as: skip unless kind,
//! major and minor match; an allowing rule takes its accesses off those still asked for and ends
//! with 1 when none is left; a denying rule ends with 0 if any of its accesses is still asked for.

use sysbox_kernel::bpf::Instruction;

use super::policy::{Access, Kind, Policy, Rule};

// Registers: the context, what is asked for, and the verdict.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Operation codes (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_WORD: u8 = 0x61; // dst = *(u32 *)(src + offset)
const MOVE: u8 = 0xb7; // dst = immediate
const MOVE_REGISTER: u8 = 0xbf; // dst = src
const AND: u8 = 0x57; // dst &= immediate
const SHIFT_RIGHT: u8 = 0x77; // dst >>= immediate
const JUMP_EQUAL: u8 = 0x15; // if dst == immediate
const JUMP_NOT_EQUAL: u8 = 0x55; // if dst != immediate
const EXIT: u8 = 0x95;

/// The program for a policy.
pub(super) fn build(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        Instruction { src: KIND, ..op(MOVE_REGISTER, ASKED, 0) },
        op(SHIFT_RIGHT, ASKED, 16),
        op(AND, KIND, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in policy.rules.iter().rev() {
        program.extend(one(rule));
    }
    program.extend(verdict(policy.allow_by_default));
    program
}

fn one(rule: &Rule) -> Vec<Instruction> {
    let kind = match rule.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let mut code = vec![op(JUMP_NOT_EQUAL, KIND, kind)];
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        code.extend(number.map(|number| op(JUMP_NOT_EQUAL, register, number.cast_signed())));
    }
    let accesses = i32::from(rule.access.0);
    if rule.allow && rule.access != Access::ALL {
        code.extend([op(AND, ASKED, !accesses), op(JUMP_NOT_EQUAL, ASKED, 0)]);
    } else if !rule.allow && rule.access != Access::ALL {
        code.extend([
            Instruction { src: ASKED, ..op(MOVE_REGISTER, SCRATCH, 0) },
            op(AND, SCRATCH, accesses),
            op(JUMP_EQUAL, SCRATCH, 0),
        ]);
    }
    code.extend(verdict(rule.allow));
    // Every jump so far leads to what follows the rule.
    let end = code.len();
    for (index, instruction) in code.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL) {
            instruction.offset = (end - index - 1) as i16;
        }
    }
    code
}

fn verdict(allow: bool) -> [Instruction; 2] {
    [op(MOVE, RESULT, allow.into()), op(EXIT, 0, 0)]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { src: CONTEXT, offset, ..op(LOAD_WORD, register, 0) }
}

fn op(code: u8, dst: u8, immediate: i32) -> Instruction {
    Instruction { code, dst, src: 0, offset: 0, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroup;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], context: [u32; 3]) -> bool {
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let insn = program[at];
            let dst = usize::from(insn.dst);
            let src = registers[usize::from(insn.src)];
            let immediate = i64::from(insn.immediate).cast_unsigned();
            let jump = match insn.code {
                JUMP_EQUAL => registers[dst] == immediate,
                JUMP_NOT_EQUAL => registers[dst] != immediate,
                _ => false,
            };
            match insn.code {
                LOAD_WORD => registers[dst] = context[insn.offset as usize / 4].into(),
                MOVE => registers[dst] = immediate,
                MOVE_REGISTER => registers[dst] = src,
                AND => registers[dst] &= immediate,
                SHIFT_RIGHT => registers[dst] >>= immediate,
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] != 0,
                other => panic!("operation {other:#x}"),
            }
            at += 1 + if jump { insn.offset as usize } else { 0 };
        }
    }

    /// Is `access` to a device allowed by these rules?
    fn allowed(rules: &str, kind: char, major: u32, minor: u32, access: &str) -> bool {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(rules).unwrap();
        let bits: u32 = access
            .chars()
            .map(|c| {
                [("m", 1), ("r", 2), ("w", 4)].iter().find(|(l, _)| l.starts_with(c)).unwrap().1
            })
            .sum();
        let kind = if kind == 'b' { 1 } else { 2 };
        run(&build(&Policy::new(&rules).unwrap()), [bits << 16 | kind, major, minor])
    }

    const DOCKER: &str = r#"[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
        {"allow":true,"type":"c","major":136,"minor":-1,"access":"rw"},
        {"allow":true,"type":"b","major":-1,"minor":-1,"access":"m"},
        {"allow":true,"type":"b","major":8,"minor":0,"access":"r"}]"#;

    #[test]
    fn allow_list() {
        for (kind, major, minor, access, expected) in [
            ('c', 1, 5, "rwm", true),
            ('c', 1, 5, "r", true),
            ('c', 1, 6, "r", false),
            ('b', 1, 5, "r", false),
            ('c', 136, 77, "rw", true),
            ('c', 136, 77, "m", false),
            ('c', 136, 77, "rm", false),
            ('b', 7, 7, "m", true),
            ('b', 7, 7, "r", false),
            // Each access by another rule.
            ('b', 8, 0, "rm", true),
            ('b', 8, 0, "rw", false),
        ] {
            assert_eq!(
                allowed(DOCKER, kind, major, minor, access),
                expected,
                "{kind} {major}:{minor} {access}"
            );
        }
    }

    #[test]
    fn deny_list_and_holes() {
        let rules = r#"[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"b","access":"w"},
            {"allow":true,"type":"b","major":8,"access":"w"},
            {"allow":false,"type":"b","major":8,"minor":1,"access":"rwm"}]"#;
        for (kind, major, minor, access, expected) in [
            ('c', 1, 1, "rwm", true),
            ('b', 7, 0, "r", true),
            ('b', 7, 0, "rw", false),
            ('b', 8, 0, "rw", true),
            ('b', 8, 1, "r", false),
        ] {
            assert_eq!(
                allowed(rules, kind, major, minor, access),
                expected,
                "{kind} {major}:{minor} {access}"
            );
        }
    }

    #[test]
    fn everything_and_nothing() {
        assert!(!allowed("[]", 'c', 1, 3, "r"));
        assert!(allowed(r#"[{"allow":true,"access":"rwm"}]"#, 'b', 8, 0, "rwm"));
        assert_eq!(build(&Policy { allow_by_default: true, rules: Vec::new() }).len(), 8);
    }
}
