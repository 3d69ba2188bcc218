//! Classic BPF as seccomp uses it: instructions, whole programs, and a small assembler that needs
//! no labels (blocks are built from the inside out, so every jump length is known).

use crate::Error;

/// `seccomp_data.nr`, the number of the call.
pub(crate) const NR: u32 = 0;
/// `seccomp_data.arch`, an `AUDIT_ARCH_*` value.
pub(crate) const ARCH: u32 = 4;

/// Actions, `SECCOMP_RET_*` of the kernel's `linux/seccomp.h`.
pub(crate) const RET_USER_NOTIF: u32 = 0x7fc0_0000;
pub(crate) const RET_ALLOW: u32 = 0x7fff_0000;
pub(crate) const RET_ERRNO: u32 = 0x0005_0000;

// Opcodes of `linux/bpf_common.h`, combined as this crate uses them.
pub(crate) const LD_W_ABS: u16 = 0x20;
pub(crate) const AND_K: u16 = 0x54;
pub(crate) const JA: u16 = 0x05;
pub(crate) const JEQ_K: u16 = 0x15;
pub(crate) const JGT_K: u16 = 0x25;
pub(crate) const JGE_K: u16 = 0x35;
pub(crate) const JSET_K: u16 = 0x45;
pub(crate) const RET_K: u16 = 0x06;

/// Size of `struct sock_filter` in bytes and the most of them in one program.
const SIZE: usize = sysbox_kernel::seccomp::INSTRUCTION_SIZE;
const MAX: usize = sysbox_kernel::seccomp::MAX_INSTRUCTIONS;

/// Offset of the low 32 bits of argument `index` (0 to 5) in `struct seccomp_data`.
pub(crate) const fn arg(index: u8) -> u32 {
    let low_word = if cfg!(target_endian = "big") { 4 } else { 0 };
    16 + 8 * index as u32 + low_word
}

/// One instruction, `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl Instruction {
    const fn plain(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    pub(crate) const fn load(offset: u32) -> Self {
        Self::plain(LD_W_ABS, offset)
    }

    pub(crate) const fn and(mask: u32) -> Self {
        Self::plain(AND_K, mask)
    }

    pub(crate) const fn ret(action: u32) -> Self {
        Self::plain(RET_K, action)
    }

    /// Jumps over the next `count` instructions.
    pub(crate) const fn skip(count: u32) -> Self {
        Self::plain(JA, count)
    }

    fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.jt;
        bytes[3] = self.jf;
        bytes[4..].copy_from_slice(&self.k.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; SIZE]) -> Self {
        let [c0, c1, jt, jf, k @ ..] = *bytes;
        Self { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes(k) }
    }
}

/// `block`, run only if the accumulator and `k` satisfy the jump `code`; otherwise control goes
/// on behind it.
pub(crate) fn when(code: u16, k: u32, block: Vec<Instruction>) -> Vec<Instruction> {
    guarded(code, k, block, true)
}

/// `block`, run only if the jump `code` is *not* satisfied.
pub(crate) fn unless(code: u16, k: u32, block: Vec<Instruction>) -> Vec<Instruction> {
    guarded(code, k, block, false)
}

fn guarded(code: u16, k: u32, block: Vec<Instruction>, on: bool) -> Vec<Instruction> {
    let length = block.len();
    let mut out = Vec::with_capacity(length + 2);
    match u8::try_from(length) {
        Ok(length) if on => out.push(Instruction { code, jt: 0, jf: length, k }),
        Ok(length) => out.push(Instruction { code, jt: length, jf: 0, k }),
        // A conditional jump reaches 255 instructions; an unconditional one any distance.
        Err(_) => {
            let (jt, jf) = if on { (1, 0) } else { (0, 1) };
            out.push(Instruction { code, jt, jf, k });
            out.push(Instruction::skip(length as u32));
        }
    }
    out.extend(block);
    out
}

/// A program that can be loaded with [`sysbox_kernel::seccomp::install`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    bytes: Vec<u8>,
    flags: u32,
}

impl Program {
    pub(crate) fn encode(instructions: &[Instruction]) -> Vec<u8> {
        instructions.iter().flat_map(|instruction| instruction.to_bytes()).collect()
    }

    /// The instructions, an array of `struct sock_filter` in host byte order.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes what [`Self::as_bytes`] gave. The flags are not part of it: see [`Self::with_flags`].
    ///
    /// # Errors
    ///
    /// [`Error::BadProgram`] if the length is not that of 1 to 4096 instructions or the last one
    /// is no return. The kernel checks the rest when it loads the program.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let program = Self { bytes: bytes.to_vec(), flags: 0 };
        let count = bytes.len() / SIZE;
        let last = program.instructions().last();
        let whole = bytes.len().is_multiple_of(SIZE) && (1..=MAX).contains(&count);
        match last {
            Some(Instruction { code: RET_K, .. }) if whole => Ok(program),
            _ => Err(Error::BadProgram { length: bytes.len() }),
        }
    }

    /// The same program, to be loaded with these `SECCOMP_FILTER_FLAG_*` bits.
    pub fn with_flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    /// The `SECCOMP_FILTER_FLAG_*` bits to load it with ([`sysbox_kernel::seccomp::FLAG_LOG`],
    /// [`sysbox_kernel::seccomp::FLAG_SPEC_ALLOW`]); those of the listener are not among them.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Whether some call is handed to a listener, so that the program must be loaded with one.
    pub fn has_traps(&self) -> bool {
        self.instructions().any(|i| i.code == RET_K && i.k == RET_USER_NOTIF)
    }

    /// The same program with the trapped calls left to the kernel, for a task that can't have a
    /// listener because an earlier filter of it has one. Only calls that the profile allows are
    /// trapped, so this takes no denial away.
    pub fn without_traps(&self) -> Self {
        let code: Vec<Instruction> = self
            .instructions()
            .map(|i| match i {
                Instruction { code: RET_K, k: RET_USER_NOTIF, .. } => Instruction::ret(RET_ALLOW),
                other => other,
            })
            .collect();
        Self { bytes: Self::encode(&code), flags: self.flags }
    }

    /// Whether the program allows every call, so that loading it can be left out.
    pub fn allows_everything(&self) -> bool {
        self.instructions().eq([Instruction::ret(RET_ALLOW)])
    }

    pub(crate) fn instructions(&self) -> impl Iterator<Item = Instruction> {
        let (whole, _) = self.bytes.as_chunks::<SIZE>();
        whole.iter().map(Instruction::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        let code = [Instruction::load(NR), Instruction::ret(RET_USER_NOTIF)];
        let program = Program::from_bytes(&Program::encode(&code)).unwrap();
        assert!(program.has_traps());
        assert!(!program.allows_everything());
        let reduced = program.without_traps();
        assert!(!reduced.has_traps());
        assert!(reduced.instructions().eq([Instruction::load(NR), Instruction::ret(RET_ALLOW)]));
        assert!(program.instructions().eq(code));
        assert_eq!(Program::from_bytes(program.as_bytes()).unwrap(), program);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let no_return = [Instruction::load(NR); 2].map(Instruction::to_bytes).concat();
        let too_long = vec![0; (MAX + 1) * SIZE];
        for bytes in [&b""[..], &b"1234567"[..], &no_return, &too_long] {
            assert!(Program::from_bytes(bytes).is_err());
        }
    }

    #[test]
    fn a_block_too_long_for_a_conditional_jump_gets_an_unconditional_one() {
        let block = vec![Instruction::ret(RET_ALLOW); 300];
        let code = when(JEQ_K, 1, block);
        assert_eq!(code.len(), 302);
        assert_eq!(code[0], Instruction { code: JEQ_K, jt: 1, jf: 0, k: 1 });
        assert_eq!(code[1], Instruction::skip(300));
    }
}
