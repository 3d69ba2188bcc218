//! Host-wide switches that the kernel counts as a network namespace's own.
//!
//! A file of `/proc/sys/net` belongs to root of the network namespace that it is looked at from, so
//! container root may write it, also in namespaces that it makes; nothing that is mounted over the file
//! reaches those. Where what it switches is one for the machine, an eBPF program of the container's cgroup
//! refuses the writing (`EPERM`), from wherever in the container it comes.

use std::fs::File;
use std::io;

use sysbox_kernel::bpf::{self, Instruction};

use crate::Cgroup;

/// `nf_hooks_lwtunnel` (Linux 5.15): writing 1 turns a static key of the kernel on, until it is booted
/// again. The only one of its kind.
const SWITCH: &[u8; 31] = b"net/netfilter/nf_hooks_lwtunnel";
/// Bytes of the stack that take the name of the file, with its end mark.
const ROOM: i16 = 40;

// Operation codes (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_BYTE: u8 = 0x71; // dst = *(u8 *)(src + offset)
const LOAD_HALF: u8 = 0x69; // *(u16 *)
const LOAD_WORD: u8 = 0x61; // *(u32 *)
const MOVE: u8 = 0xb7; // dst = immediate
const MOVE_REGISTER: u8 = 0xbf; // dst = src
const ADD: u8 = 0x07; // dst += immediate
const JUMP_EQUAL: u8 = 0x15; // if dst == immediate
const JUMP_NOT_EQUAL: u8 = 0x55; // if dst != immediate
const JUMP_NOT_EQUAL_32: u8 = 0x56; // if (u32)dst != immediate
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// `bpf_sysctl_get_name(ctx, buf, len, flags)`: length of the name below /proc/sys.
const SYSCTL_GET_NAME: i32 = 101;

impl Cgroup {
    /// Lets nobody in the cgroup and below turn a switch of the host. To be called once, after it was
    /// created.
    ///
    /// # Errors
    /// The host has no cgroup v2, the kernel no eBPF for cgroups, or the caller not the right to it.
    pub fn guard_switches(&self) -> io::Result<()> {
        let dir = self.unified().ok_or(io::ErrorKind::Unsupported)?;
        let program = bpf::load_sysctl_program(&program())?;
        bpf::attach_sysctl_program(File::open(dir)?, program)
    }
}

/// The kernel calls it with `struct bpf_sysctl { write, file_pos }` and takes 1 for "allowed".
fn program() -> Vec<Instruction> {
    let mut program = vec![
        insn(LOAD_WORD, 0, 1, 0, 0),
        insn(JUMP_EQUAL, 0, 0, 0, 0),
        insn(MOVE_REGISTER, 2, 10, 0, 0),
        insn(ADD, 2, 0, 0, i32::from(-ROOM)),
        insn(MOVE, 3, 0, 0, ROOM.into()),
        insn(MOVE, 4, 0, 0, 0),
        insn(CALL, 0, 0, 0, SYSCTL_GET_NAME),
        insn(JUMP_NOT_EQUAL, 0, 0, 0, SWITCH.len() as i32),
    ];
    let mut at = 0;
    while at < SWITCH.len() {
        let rest = &SWITCH[at..];
        let (load, immediate) = match rest {
            [a, b, c, d, ..] => (LOAD_WORD, i32::from_ne_bytes([*a, *b, *c, *d])),
            [a, b, ..] => (LOAD_HALF, u16::from_ne_bytes([*a, *b]).into()),
            _ => (LOAD_BYTE, rest[0].into()),
        };
        program.push(insn(load, 0, 10, at as i16 - ROOM, 0));
        program.push(insn(JUMP_NOT_EQUAL_32, 0, 0, 0, immediate));
        at += match load {
            LOAD_WORD => 4,
            LOAD_HALF => 2,
            _ => 1,
        };
    }
    program.extend([insn(MOVE, 0, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    // Every jump leads to here.
    let end = program.len();
    for (index, instruction) in program.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_32) {
            instruction.offset = (end - index - 1) as i16;
        }
    }
    program.extend([insn(MOVE, 0, 0, 0, 1), insn(EXIT, 0, 0, 0, 0)]);
    program
}

fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, dst, src, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_takes_it() {
        match bpf::load_sysctl_program(&program()) {
            Ok(_) => {}
            // Not root, or a kernel without it.
            Err(error) => assert!(
                [rustix::io::Errno::PERM, rustix::io::Errno::NOSYS]
                    .contains(&rustix::io::Errno::from_io_error(&error).unwrap()),
                "{error}"
            ),
        }
    }
}
