//! Lines that engines and people really type: each must parse, to the same as it does for runc.

use super::{Arguments, Command};

/// go-runc (containerd's shim, Docker), conmon (Podman, CRI-O), Podman itself, runc's own tests.
const ACCEPTED: &[&str] = &[
    // containerd-shim-runc-v2 by go-runc
    "--root /run/docker/runtime-runc/moby --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid ID",
    "--root /r --log /b/log.json --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty/pty.sock --no-pivot --no-new-keyring ID",
    "--root /r --rootless=true create --bundle /b --pidfd-socket /s --preserve-fds 3 ID",
    "--root /r --log /b/log.json --log-format json start ID",
    "--root /r --log /b/log.json --log-format json exec --process /tmp/p --console-socket /s --detach --pid-file /b/x.pid ID",
    "exec --process /tmp/p --pidfd-socket /s --preserve-fds 1 --detach --pid-file p ID",
    "--root /r --log /b/log.json --log-format json kill --all ID 9",
    "--root /r --log /b/log.json --log-format json kill ID 15",
    "--root /r --log /b/log.json --log-format json delete --force ID",
    "--root /r --log /b/log.json --log-format json delete ID",
    "--root /r ps --format json ID",
    "--root /r list --format=json",
    "--root /r state ID",
    "--root /r events --stats ID",
    "--root /r events --interval=5s ID",
    "--root /r update --resources=- ID",
    "--root /r update --resources - ID",
    "--root /r pause ID",
    "--root /r resume ID",
    "--root /r checkpoint --image-path /i --work-path /w --leave-running --tcp-established --ext-unix-sk --shell-job --file-locks --empty-ns network ID",
    "--root /r restore --image-path /i --bundle /b --detach --pid-file /p --no-pivot --no-subreaper ID",
    // conmon, with Podman's and CRI-O's options
    "--log-format=json --log=/c/oci-log --systemd-cgroup --root=/run/runc create --bundle /b --pid-file /p ID",
    "--root /run/runc --systemd-cgroup --log=/b/log --log-format=json create --bundle /b --pid-file /p --console-socket /s --no-pivot --preserve-fds 1 ID",
    "--root /run/runc exec --pid-file /p --process /proc.json --detach --console-socket /s ID",
    "--root /run/runc exec --pid-file /p --preserve-fds 2 --process /proc.json --detach ID",
    // Podman and Docker themselves
    "--version",
    "-v",
    "features",
    "--root /r kill ID TERM",
    // people
    "run ID",
    "run -b /b -d --pid-file p --console-socket s ID",
    "run --keep --no-subreaper --no-new-keyring --bundle b ID",
    "exec -t -u 1000:1000 -g 5 -g 6 -e A=1 --cwd /tmp -c CAP_NET_ADMIN --cgroup /a ID ls -l --color /",
    "exec --apparmor unconfined --process-label a:b:c:d --no-new-privs --ignore-paused ID true",
    "kill ID",
    "list -f table -q",
    "ps -f table ID -e -x",
    "spec",
    "spec --rootless -b /b",
    "update --memory 512M --memory-swap -1 --memory-reservation 1g --cpu-share 10 --cpu-quota -1 --cpu-period 5 --cpu-burst 1 --cpu-idle 1 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit -1 --blkio-weight 100 ID",
    "update --cpu-rt-period 1 --cpu-rt-runtime 1 --kernel-memory 5 --kernel-memory-tcp 5 --l3-cache-schema L3:0=f --mem-bw-schema MB:0=1 ID",
    "--debug --criu /usr/sbin/criu --rootless=auto list",
    // Go's flags
    "-root /r -log=/l -log-format json -systemd-cgroup=true -debug=false list -q",
    "--root /a --root /b --debug --debug list",
    "-root=/r run -bundle /b -detach=true -pid-file=p ID",
    "update ID --pids-limit 42 -cpu-quota -1",
    "exec ID -t",
    "exec --tty=false ID ls -l",
    "checkpoint -image-path /i ID",
];

const REFUSED: &[&str] = &[
    "create",
    "create a b",
    "start",
    "unknown ID",
    "--unknown list",
    "exec --preserve-fds x ID true",
    "update --cpu-share x ID",
];

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    super::parse(["sysbox-runc"].into_iter().chain(words).map(Into::into))
}

#[test]
fn real_lines_parse() {
    for line in ACCEPTED {
        if let Err(e) = parse(line) {
            panic!("{line}: {e}");
        }
    }
    for line in REFUSED {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn what_follows_the_command_of_exec_is_not_ours() {
    let arguments = parse("exec -t ID ls -t --root /x").unwrap();
    let Some(Command::Exec(exec)) = arguments.command else { panic!("not exec") };
    assert!(exec.tty && exec.id == "ID");
    assert_eq!(exec.command, ["ls", "-t", "--root", "/x"]);
    assert_eq!(arguments.global.root.to_str(), Some("/run/sysbox-runc"));
}

#[test]
fn flags_as_go_takes_them() {
    let arguments = parse("-root /r -debug=false -systemd-cgroup=1 list").unwrap();
    let global = &arguments.global;
    assert_eq!(global.root.to_str(), Some("/r"));
    assert!(global.systemd_cgroup && !global.debug);
    let arguments = parse("exec ID -t --root").unwrap();
    let Some(Command::Exec(exec)) = arguments.command else { panic!("not exec") };
    assert!(!exec.tty && exec.command == ["-t", "--root"], "{exec:?}");
}

#[test]
fn help_has_the_form_of_runcs() {
    let first_lines = |line: &str| {
        let text = parse(line).unwrap_err().to_string();
        let mut lines = text.lines().filter(|line| !line.is_empty()).map(str::to_owned);
        (lines.next().unwrap(), lines.next().unwrap())
    };
    let (title, name) = first_lines("--help");
    assert_eq!((title.as_str(), name.contains("runc - Open Container")), ("NAME:", true), "{name}");
    for command in ["checkpoint", "delete", "exec", "restore", "update"] {
        let (title, name) = first_lines(&format!("{command} -h"));
        assert_eq!(title, "NAME:");
        assert!(name.contains(&format!("runc {command} - ")), "{name}");
    }
}

#[test]
fn a_missing_signal_is_term() {
    let arguments = parse("kill ID").unwrap();
    let Some(Command::Kill(kill)) = arguments.command else { panic!("not kill") };
    assert_eq!((kill.signal.as_str(), kill.all), ("TERM", false));
}

#[test]
fn the_definitions_are_consistent() {
    super::help::command().debug_assert();
}
