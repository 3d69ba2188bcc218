//! What comes of real profiles: which calls a system container may make.

mod common;

use common::*;
use serde_json::{Value, json};
use sysbox_seccomp::{Abi, GRANTS, Gate, Request, merge, program};

const ABIS: [Abi; 3] = [Abi::X86_64, Abi::X32, Abi::I386];

/// Arguments that no trap is interested in.
const NO_TRAP: [u64; 6] = [0, 2, 0, 0x1000, 0, 0];

#[test]
fn a_system_container_under_dockers_default_may_do_what_systems_do() {
    let machine = system_container(Some(docker()));
    for abi in ABIS {
        for row in GRANTS {
            if abi.number(row.name).is_none() || matches!(row.name, "umount" | "fsopen") {
                continue;
            }
            assert_eq!(machine.call(abi, row.name, &NO_TRAP), ALLOW, "{} on {abi:?}", row.name);
        }
        for name in ["read", "mkdir", "execve", "fork", "capset"] {
            assert_eq!(machine.call(abi, name, &[]), ALLOW, "{name} on {abi:?}");
        }
        for name in ["kexec_load", "init_module", "swapon", "perf_event_open", "userfaultfd"] {
            assert_eq!(machine.call(abi, name, &[]), EPERM, "{name} on {abi:?}");
        }
    }
}

#[test]
fn argument_tests_of_the_engine_survive() {
    let machine = system_container(Some(docker()));
    for abi in ABIS {
        for (persona, expected) in [(0, ALLOW), (8, ALLOW), (0xffff_ffff, ALLOW), (0x40000, EPERM)]
        {
            assert_eq!(machine.call(abi, "personality", &[persona]), expected, "{persona:#x}");
        }
    }
    let vsock = json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]});
    let machine = system_container(Some(with_rule(without(docker(), "socket"), vsock)));
    assert_eq!(machine.call(Abi::X86_64, "socket", &[1]), ALLOW);
    assert_eq!(machine.call(Abi::X86_64, "socket", &[40]), EPERM);
}

/// What becomes of `call` under `profile` in a system container.
fn fate(profile: Value, call: &str) -> u32 {
    system_container(Some(profile)).call(Abi::X86_64, call, &NO_TRAP)
}

#[test]
fn what_the_user_took_away_stays_away() {
    let deny = |name: &str| json!({"names": [name], "action": "SCMP_ACT_ERRNO"});
    let kill = |name: &str| json!({"names": [name], "action": "SCMP_ACT_KILL"});
    let permissive = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let few = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "write", "execve", "exit_group"], "action": "SCMP_ACT_ALLOW"}]});
    let rows: [(&str, Value, &str, u32); 16] = [
        ("deleted from a copy of the default", without(docker(), "mkdir"), "mkdir", EPERM),
        ("...the rest is as ever", without(docker(), "mkdir"), "unshare", ALLOW),
        ("denied by a rule", with_rule(docker(), deny("mount")), "mount", EPERM),
        ("killed by a rule", with_rule(docker(), kill("setns")), "setns", KILL),
        ("denied, one of a group", with_rule(docker(), deny("sethostname")), "sethostname", EPERM),
        ("denied, the others stay", with_rule(docker(), deny("sethostname")), "mount", ALLOW),
        ("deleted though the engine had it", without(docker_sys_admin(), "mount"), "mount", EPERM),
        (
            "...with its newer form",
            without(without(docker_sys_admin(), "mount"), "mount_setattr"),
            "open_tree_attr",
            ENOSYS,
        ),
        ("...the rest of the group", without(docker_sys_admin(), "mount"), "umount2", ALLOW),
        ("chroot, which engines give", without(docker(), "chroot"), "chroot", EPERM),
        ("a list of the user's own", few.clone(), "mount", EPERM),
        ("a list of denials", permissive(deny("mount")), "mount", EPERM),
        ("a list of denials, not denied", permissive(deny("mkdir")), "mount", ALLOW),
        ("podman's, denied by a rule", with_rule(podman(), deny("quotactl")), "quotactl", EPERM),
        ("podman's, deleted", without(podman(), "mkdir"), "mkdir", ENOSYS),
        (
            "podman's, reboot denied",
            with_rule(
                without(podman(), "reboot"),
                json!({"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}),
            ),
            "reboot",
            EPERM,
        ),
    ];
    for (what, profile, call, expected) in rows {
        assert_eq!(fate(profile, call), expected, "{what}: {call}");
    }
}

#[test]
fn rules_by_which_engines_withhold_calls_give_way() {
    for name in ["bpf", "sethostname", "setns", "quotactl", "kcmp", "mbind", "clone3"] {
        assert_eq!(fate(podman(), name), ALLOW, "{name}");
    }
    assert_eq!(fate(podman(), "iopl"), EPERM);
    assert_eq!(fate(podman(), "perf_event_open"), EPERM);
    let without_chroot = with_rule(
        without(podman(), "chroot"),
        json!({"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}),
    );
    assert_eq!(fate(without_chroot, "chroot"), ALLOW, "CRI-O gives no CAP_SYS_CHROOT");
    let new_user_namespace = 0x1000_0000;
    let machine = system_container(Some(docker()));
    assert_eq!(machine.call(Abi::X86_64, "clone", &[new_user_namespace]), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let machine = system_container(Some(docker()));
    for abi in ABIS {
        let bit = if abi == Abi::X32 { 0x4000_0000 } else { 0 };
        // Above x32's own numbers, which lie behind all others.
        assert_eq!(machine.number(abi, 600 | bit, &[]), ENOSYS, "{abi:?}");
        assert_eq!(machine.call(abi, "statmount", &[]), ALLOW, "{abi:?}");
    }
    assert_eq!(machine.call(Abi::X86_64, "cachestat", &[]), ENOSYS);
    assert_eq!(machine.call(Abi::I386, "mseal", &[]), ENOSYS);
    // A name that libseccomp may not know yet, in the profile itself.
    let allow = json!({"names": ["mseal"], "action": "SCMP_ACT_ALLOW"});
    let machine = system_container(Some(with_rule(docker(), allow)));
    assert_eq!(machine.call(Abi::X86_64, "mseal", &[]), ALLOW);
    assert_eq!(machine.number(Abi::X86_64, 463, &[]), ENOSYS);
    // Between the two: known when the profile was written, and not allowed by it.
    assert_eq!(machine.number(Abi::X86_64, 461, &[]), EPERM);
}

#[test]
fn without_a_system_container_the_profile_is_the_engines() {
    let profile = parse(docker());
    let request = Request { profile: Some(&profile), system_container: false, traps: false };
    let (program, warnings) = program(&request, None).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(!program.has_traps());
    let machine = Machine::new(&program);
    for (name, expected) in [("read", ALLOW), ("mount", EPERM), ("clone3", ENOSYS)] {
        assert_eq!(machine.call(Abi::X86_64, name, &[]), expected, "{name}");
    }
    assert_eq!(machine.call(Abi::X86_64, "clone", &[0x1000_0000]), EPERM);
    assert_eq!(merge(Some(&profile), false).profile.unwrap(), profile);
}

#[test]
fn merging_twice_changes_nothing_more() {
    for profile in [docker(), docker_sys_admin(), podman()] {
        let once = merge(Some(&parse(profile)), true);
        let twice = merge(once.profile.as_ref(), true);
        assert_eq!(once.profile, twice.profile);
        assert!(twice.granted.is_empty(), "{:?}", twice.granted);
    }
}

#[test]
fn a_list_of_the_users_own_is_left_alone_and_told() {
    let own = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "mount"], "action": "SCMP_ACT_ALLOW"}]});
    let merged = merge(Some(&parse(own.clone())), true);
    assert_eq!(merged.profile, Some(parse(own)));
    let warning = merged.warnings[0].as_str();
    assert!(warning.contains("unshare") && !warning.contains(" mount,"), "{warning}");
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let rule = |rule: Value| with_rule(docker(), rule);
    let rows = [
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            "linux.seccomp.listenerPath",
        ),
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "linux.seccomp.defaultAction"),
        (
            rule(json!({"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000})),
            "syscalls[12].errnoRet: 5000",
        ),
        (
            rule(json!({"names": ["acct"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "args[0].index: 6 is no argument",
        ),
    ];
    for (profile, expected) in rows {
        let profile = parse(profile);
        let request = Request { profile: Some(&profile), system_container: true, traps: true };
        let message = program(&request, None).unwrap_err().to_string();
        let message = message.replace(" in config.json", "");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn unknown_names_are_left_out_with_a_warning() {
    let unknown = json!({"names": ["no_such_call", "acct"], "action": "SCMP_ACT_ALLOW"});
    let profile = parse(with_rule(docker(), unknown));
    let request = Request { profile: Some(&profile), system_container: true, traps: true };
    let (program, warnings) = program(&request, None).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].as_str().contains("no_such_call"));
    assert_eq!(Machine::new(&program).call(Abi::X86_64, "acct", &[]), ALLOW);
}

#[test]
fn several_tests_of_one_argument_are_alternatives() {
    let test = |value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
    let rule = json!({"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [test(1), test(2)]});
    let machine = system_container(Some(with_rule(docker(), rule)));
    for (value, expected) in [(1, ALLOW), (2, ALLOW), (3, EPERM)] {
        assert_eq!(machine.call(Abi::X86_64, "acct", &[value]), expected);
    }
}

#[test]
fn every_row_of_the_table_says_why() {
    for row in GRANTS {
        assert!(row.reason.len() > 10, "{}", row.name);
        if let Gate::Needs(capability) = row.gate {
            assert!(capability.name.starts_with("CAP_"));
        }
    }
}
