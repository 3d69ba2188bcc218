//! Which calls reach the listener, on every ABI of a 64-bit x86 machine.
#![cfg(target_arch = "x86_64")]

mod common;

use common::*;
use serde_json::json;
use sysbox_seccomp::{Abi, Request, TRAPS, program};

const ABIS: [Abi; 3] = [Abi::X86_64, Abi::X32, Abi::I386];
const MS_RDONLY: u64 = 1;
const MS_REMOUNT: u64 = 0x20;
const MS_BIND: u64 = 0x1000;
const MS_MOVE: u64 = 0x2000;
const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SHARED: u64 = 1 << 20;
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const CHAR: u64 = 0o020666;
const BLOCK: u64 = 0o060600;
const FIFO: u64 = 0o010600;
const FILE: u64 = 0o100600;

fn rows() -> Vec<(&'static str, Vec<u64>, u32)> {
    let mount = |flags| vec![0, 0, 0, flags];
    vec![
        ("mount", mount(0), NOTIFY),
        ("mount", mount(MS_RDONLY), NOTIFY),
        ("mount", mount(MS_BIND), ALLOW),
        ("mount", mount(MS_BIND | MS_REC), ALLOW),
        ("mount", mount(MS_REMOUNT | MS_RDONLY), NOTIFY),
        ("mount", mount(MS_REMOUNT | MS_BIND | MS_REC), NOTIFY),
        ("mount", mount(MS_MGC_VAL | MS_REMOUNT | MS_BIND), NOTIFY),
        ("mount", mount(MS_MOVE), ALLOW),
        ("mount", mount(MS_PRIVATE | MS_REC), ALLOW),
        ("mount", mount(MS_SHARED), ALLOW),
        ("mount", mount(MS_MGC_VAL), NOTIFY),
        ("mount", mount(MS_MGC_VAL | MS_RDONLY), NOTIFY),
        ("mount", mount(MS_MGC_VAL | MS_BIND), ALLOW),
        ("umount2", vec![0, 0], NOTIFY),
        ("umount2", vec![0, 1], NOTIFY),
        ("umount2", vec![0, 2], ALLOW),
        ("umount", vec![0], NOTIFY),
        ("fsopen", vec![0, 1], NOTIFY),
        ("mknod", vec![0, CHAR, 0x103], NOTIFY),
        ("mknod", vec![0, CHAR, 0], ALLOW),
        ("mknod", vec![0, BLOCK, 0x700], NOTIFY),
        ("mknod", vec![0, BLOCK, 0], NOTIFY),
        ("mknod", vec![0, FIFO, 0x103], ALLOW),
        ("mknod", vec![0, FILE, 0], ALLOW),
        ("mknodat", vec![0, 0, CHAR, 0x103], NOTIFY),
        ("mknodat", vec![0, 0, CHAR, 0], ALLOW),
        ("mknodat", vec![0, 0, BLOCK, 0x700], NOTIFY),
        ("mknodat", vec![0, 0, FIFO, 0], ALLOW),
        // The kernel looks at the low halves only.
        ("mknod", vec![0, 0xffff_0000 | CHAR, 0x103], NOTIFY),
        ("umount2", vec![0, 2 << 32], NOTIFY),
    ]
}

#[test]
fn the_listener_gets_new_mounts_plain_unmounts_and_devices() {
    let profiles = [None, Some(docker()), Some(docker_sys_admin()), Some(podman())];
    for profile in profiles {
        let machine = system_container(profile);
        for (name, args, expected) in rows() {
            for abi in ABIS {
                if abi.number(name).is_some() {
                    assert_eq!(machine.call(abi, name, &args), expected, "{name}{args:?} {abi:?}");
                }
            }
        }
        println!("{} instructions", machine.len());
    }
}

#[test]
fn ordinary_calls_look_at_nothing_but_their_number() {
    for profile in [None, Some(docker()), Some(podman())] {
        let machine = system_container(profile);
        for abi in ABIS {
            for name in ["read", "openat", "clone", "execve", "statmount", "umount2"] {
                let expected = name == "umount2";
                assert_eq!(machine.looks_at_arguments(abi, name), expected, "{name} {abi:?}");
            }
        }
    }
}

#[test]
fn a_call_that_the_profile_denies_is_not_served() {
    let deny = json!({"names": ["mount"], "action": "SCMP_ACT_ERRNO"});
    let machine = system_container(Some(with_rule(docker(), deny)));
    let conditional = json!({"names": ["umount2"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]});
    let other = system_container(Some(with_rule(docker(), conditional)));
    for abi in ABIS {
        assert_eq!(machine.call(abi, "mount", &[0; 6]), EPERM);
        assert_eq!(machine.call(abi, "fsopen", &[0; 6]), NOTIFY);
        assert_eq!(other.call(abi, "umount2", &[0, 0]), EPERM);
        assert_eq!(other.call(abi, "umount2", &[0, 1]), ALLOW);
    }
    let denials = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mknod"], "action": "SCMP_ACT_ERRNO"}]});
    let machine = system_container(Some(denials));
    assert_eq!(machine.call(Abi::X86_64, "mknod", &[0, CHAR, 0x103]), EPERM);
    assert_eq!(machine.call(Abi::X86_64, "mknodat", &[0, 0, CHAR, 0x103]), NOTIFY);
}

#[test]
fn an_architecture_that_the_profile_leaves_out_is_not_served() {
    let mut profile = docker();
    profile["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    let machine = system_container(Some(profile));
    assert_eq!(machine.call(Abi::X86_64, "mount", &[0; 6]), NOTIFY);
    assert_ne!(machine.call(Abi::I386, "mount", &[0; 6]), NOTIFY);
    assert_ne!(machine.call(Abi::X32, "mount", &[0; 6]), NOTIFY);
}

#[test]
fn without_traps_the_kernel_answers() {
    let profile = parse(docker());
    for profile in [None, Some(&profile)] {
        let request = Request { profile, system_container: true, traps: false };
        let (program, _) = program(&request, None).unwrap();
        assert!(!program.has_traps());
        assert_eq!(program.allows_everything(), profile.is_none());
        let machine = Machine::new(&program);
        for trap in TRAPS {
            assert!(trap.reason.len() > 5);
            if Abi::X86_64.number(trap.name).is_some() {
                assert_eq!(machine.call(Abi::X86_64, trap.name, &[0; 6]), ALLOW);
            }
        }
    }
}
