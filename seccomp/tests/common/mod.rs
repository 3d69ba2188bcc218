//! What the tests of this crate share: the engines' profiles, and a machine that runs programs as
//! the kernel would.
#![allow(dead_code)] // Each test binary uses a part of it.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};
use sysbox_seccomp::{Abi, Program, Request, program};

pub const ALLOW: u32 = 0x7fff_0000;
pub const NOTIFY: u32 = 0x7fc0_0000;
pub const EPERM: u32 = 0x0005_0001;
pub const ENOSYS: u32 = 0x0005_0026;
pub const KILL: u32 = 0;

/// What Docker 20.10 wrote into config.json for a plain `docker run`.
pub fn docker() -> Value {
    serde_json::from_str(include_str!("../fixtures/docker.json")).unwrap()
}

/// The same for `docker run --cap-add SYS_ADMIN`.
pub fn docker_sys_admin() -> Value {
    serde_json::from_str(include_str!("../fixtures/docker-sys-admin.json")).unwrap()
}

/// A profile in the manner of Podman and CRI-O: unknown calls don't exist, what is withheld for
/// want of a capability is denied by a rule for each, and the mount calls are for everyone.
pub fn podman() -> Value {
    let mut profile = docker();
    profile["defaultErrnoRet"] = json!(38);
    let rules = profile["syscalls"].as_array_mut().unwrap();
    rules.retain(|rule| {
        !["clone", "clone3", "chroot"].contains(&rule["names"][0].as_str().unwrap())
    });
    let allowed = rules[0]["names"].as_array_mut().unwrap();
    for name in [
        "chroot",
        "clone",
        "clone3",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "keyctl",
        "mount",
        "move_mount",
        "open_tree",
        "pidfd_getfd",
        "pivot_root",
        "reboot",
        "setns",
        "umount",
        "umount2",
        "unshare",
    ] {
        allowed.push(json!(name));
    }
    let withheld = [
        vec![
            "bpf",
            "fanotify_init",
            "lookup_dcookie",
            "perf_event_open",
            "quotactl",
            "setdomainname",
            "sethostname",
            "setns",
        ],
        vec!["kcmp", "process_madvise"],
        vec!["mbind", "set_mempolicy"],
        vec!["iopl", "ioperm"],
    ];
    for names in withheld {
        rules.push(json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}));
    }
    profile
}

/// `profile` without `call` in any of its rules.
pub fn without(mut profile: Value, call: &str) -> Value {
    for rule in profile["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(|name| name != call);
    }
    profile
}

/// `profile` with one more rule.
pub fn with_rule(mut profile: Value, rule: Value) -> Value {
    profile["syscalls"].as_array_mut().unwrap().push(rule);
    profile
}

pub fn parse(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).unwrap()
}

/// The program of a system container with traps, made without a cache.
pub fn system_container(profile: Option<Value>) -> Machine {
    let profile = profile.map(parse);
    let request = Request { profile: profile.as_ref(), system_container: true, traps: true };
    Machine::new(&program(&request, None).unwrap().0)
}

/// Runs a program as the kernel does for one call.
pub struct Machine {
    program: Vec<(u16, u8, u8, u32)>,
}

impl Machine {
    pub fn new(program: &Program) -> Self {
        let (instructions, _) = program.as_bytes().as_chunks::<8>();
        let decode = |i: &[u8; 8]| {
            let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
            (u16::from_ne_bytes([i[0], i[1]]), i[2], i[3], k)
        };
        Self { program: instructions.iter().map(decode).collect() }
    }

    pub fn len(&self) -> usize {
        self.program.len()
    }

    /// The action for the call `name` with `args`; the call must exist in `abi`.
    pub fn call(&self, abi: Abi, name: &str, args: &[u64]) -> u32 {
        let number = abi.number(name).unwrap_or_else(|| panic!("{abi:?} has no {name}"));
        self.number(abi, number, args)
    }

    pub fn number(&self, abi: Abi, number: u32, args: &[u64]) -> u32 {
        self.run(abi, number, args).0
    }

    /// Whether the program looks at anything but number and architecture: the kernel's bitmap of
    /// constant actions can only hold the call if it does not.
    pub fn looks_at_arguments(&self, abi: Abi, name: &str) -> bool {
        self.run(abi, abi.number(name).unwrap(), &[]).1
    }

    fn run(&self, abi: Abi, number: u32, args: &[u64]) -> (u32, bool) {
        let arch = match abi {
            Abi::X86_64 | Abi::X32 => 0xc000_003e_u32,
            Abi::I386 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        };
        let mut data = [0; 64];
        data[..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (slot, value) in data[16..].chunks_exact_mut(8).zip(args) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
        let (mut pc, mut a, mut looked) = (0, 0_u32, false);
        loop {
            let (code, jt, jf, k) = self.program[pc];
            let branch = |taken: bool| usize::from(if taken { jt } else { jf });
            pc += 1;
            match code {
                0x20 => {
                    let at = k as usize;
                    looked |= at >= 8;
                    a = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
                }
                0x54 => a &= k,
                0x05 => pc += k as usize,
                0x15 => pc += branch(a == k),
                0x25 => pc += branch(a > k),
                0x35 => pc += branch(a >= k),
                0x45 => pc += branch(a & k != 0),
                0x06 => return (k, looked),
                code => panic!("instruction {code:#x} at {}", pc - 1),
            }
        }
    }
}
