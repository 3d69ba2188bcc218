//! What people look at a machine with: the numbers of different tools and of different sources agree
//! with each other, and with what really goes on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sysbox_tests::{
    BOOKWORM, BUSYBOX, Cmd, Container, Running, World, cannot_run, shared, wait_until,
};

const MEMORY: u64 = 1 << 30;

/// Debian, with procps and util-linux, on two CPUs.
fn debian(test: &str, controllers: &[&str], args: &[&str]) -> Option<Running> {
    if !World::current().has_controllers(test, controllers) {
        return None;
    }
    let cpus = fs::read_to_string("/sys/devices/system/cpu/online").expect("the host's CPUs");
    if cpus.trim() == "0" {
        cannot_run(test, "the host has one CPU only");
        return None;
    }
    let container = Container::new(BOOKWORM).args(["--cpuset-cpus", "0,1"]).args(args);
    Some(container.start(["sleep", "infinity"]))
}

/// A number that a command prints.
#[track_caller]
fn number(container: &Running, script: &str) -> u64 {
    let text = container.sh(script).ok();
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {script}\n{text}"))
}

#[test]
fn all_sources_tell_the_same_machine() {
    let _world = shared();
    let memory = MEMORY.to_string();
    let limits = ["--memory", memory.as_str(), "--memory-swap", memory.as_str()];
    let test = "all_sources_tell_the_same_machine";
    let Some(container) = debian(test, &["cpuset", "memory"], &limits) else { return };

    for script in [
        "nproc",
        "getconf _NPROCESSORS_ONLN",
        "grep -c ^processor /proc/cpuinfo",
        "grep -c '^cpu[0-9]' /proc/stat",
        "lscpu --parse | grep -vc '^#'",
    ] {
        assert_eq!(number(&container, script), 2, "{script}");
    }
    let lscpu = container.sh("LC_ALL=C lscpu").ok();
    let line = |name| lscpu.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line("On-line CPU(s) list:").ends_with(" 0,1"), "{lscpu}");
    assert!(line("CPU(s):").ends_with(" 2"), "{lscpu}");

    // The last one is sysinfo(2).
    for script in [
        "free --bytes | awk '/^Mem:/ { print $2 }'",
        "awk '/^MemTotal:/ { print $2 * 1024 }' /proc/meminfo",
        "echo $(($(getconf _PHYS_PAGES) * $(getconf PAGESIZE)))",
    ] {
        assert_eq!(number(&container, script), MEMORY, "{script}");
    }
    let available = number(&container, "echo $(($(getconf _AVPHYS_PAGES) * $(getconf PAGESIZE)))");
    assert!(available < MEMORY && available > MEMORY / 2, "{available}");

    // Seconds since the start, by the clock, by the file, by the first process, by boot time.
    let script = "cut -d . -f 1 /proc/uptime; ps -p 1 -o etimes=; \
                  echo $(($(date +%s) - $(awk '/^btime/ { print $2 }' /proc/stat))); \
                  echo $(($(date +%s) - $(date +%s --date \"$(uptime --since)\")))";
    let times = container.sh(script).ok();
    let times: Vec<i64> = times.lines().map(|line| line.trim().parse().expect(line)).collect();
    assert_eq!(times.len(), 4);
    assert!(times.iter().all(|time| (time - times[0]).abs() <= 2), "{times:?}");
}

#[test]
fn a_busy_cpu_shows_as_half_of_two() {
    let _world = shared();
    let test = "a_busy_cpu_shows_as_half_of_two";
    let Some(container) = debian(test, &["cpuset"], &[]) else { return };
    assert!(container.sh("cat /proc/loadavg").ok().starts_with("0.00 0.00 0.00 "));

    let uptime = || -> f64 {
        let text = container.sh("cut -d ' ' -f 1 /proc/uptime").ok();
        text.trim().parse().expect("a number")
    };
    let begun = uptime();
    Cmd::docker(["exec", "--detach", &container.name, "sh", "-c", "while :; do :; done"]).ok();
    // The kernel's own account says what is true: on a busy host a burner does not get a whole CPU.
    let look = "cut -d ' ' -f 1 /proc/uptime; sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat";
    let script = format!(
        "{look}; vmstat 4 2 | tail -n 1 >/tmp/vmstat & LC_ALL=C top -b -n 2 -d 4 | \
         grep '^%Cpu' | tail -n 1 >/tmp/top; wait; {look}; cat /tmp/vmstat /tmp/top"
    );
    let text = container.sh(&script).ok();
    let lines: Vec<&str> = text.lines().collect();
    let at = |line: usize| lines[line].trim().parse::<f64>().expect(lines[line]);
    let truth = (at(3) - at(1)) / 1e6 / (at(2) - at(0)) / 2.0 * 100.0;
    let vmstat: Vec<f64> = lines[4].split_whitespace().map(|n| n.parse().expect(n)).collect();
    let of_vmstat = vmstat[12] + vmstat[13];
    let of_top: f64 = lines[5]
        .trim_start_matches("%Cpu(s):")
        .split(',')
        .map(|part| part.split_whitespace().collect::<Vec<_>>())
        .filter(|part| matches!(part[1], "us" | "sy" | "ni"))
        .map(|part| part[0].parse::<f64>().expect("a number"))
        .sum();
    for (tool, shown) in [("vmstat", of_vmstat), ("top", of_top)] {
        assert!(
            (shown - truth).abs() <= 5.0,
            "{tool} says {shown:.1} %, true is {truth:.1} %\n{text}"
        );
    }

    // One task that always wants to run: the load goes to 1 as the kernel's formula says.
    let (age, load) = wait_until("the load rises", Duration::from_secs(60), || {
        let load: f64 = {
            let text = container.sh("cut -d ' ' -f 1 /proc/loadavg").ok();
            text.trim().parse().expect("a number")
        };
        let age = uptime() - begun;
        if load > 0.2 { Ok((age, load)) } else { Err(format!("{load} after {age} s")) }
    });
    let after = |seconds: f64| 1.0 - (-seconds.max(0.0) / 60.0).exp();
    // Samples are five seconds apart; tools that run at that moment count, too.
    assert!(
        (after(age - 11.0)..after(age + 6.0) + 0.2).contains(&load),
        "load is {load} after {age:.1} s, by the formula it is {:.2}",
        after(age)
    );
    let processes = container.sh("LC_ALL=C top -b -n 1 | head -n 12").ok();
    assert!(processes.contains(" 1 running") || processes.contains(" 2 running"), "{processes}");
}

/// What must be on the machine for the next test, which runs it from there.
const PROGRAMS: [&str; 7] = ["mpstat", "iostat", "htop", "numactl", "node", "java", "podman"];

/// A busy loop's share as the tools tell it, and the machine that language runtimes believe to be on.
///
/// The programs are this machine's own: its `/usr` is mounted read-only.
#[test]
fn monitors_and_language_runtimes_see_the_container() {
    let _world = shared();
    let test = "monitors_and_language_runtimes_see_the_container";
    if !World::current().has_controllers(test, &["cpuset", "memory"]) {
        return;
    }
    let there = |program: &str| Path::new("/usr/bin").join(program).exists();
    if let Some(missing) = PROGRAMS.iter().find(|program| !there(program)) {
        return cannot_run(test, &format!("{missing} is not installed"));
    }
    let memory = MEMORY.to_string();
    let mut args: Vec<String> = ["/usr:/usr", "/usr/lib:/lib", "/usr/lib64:/lib64"]
        .map(|volume| format!("--volume={volume}:ro"))
        .to_vec();
    // Where `java` in /usr/bin leads to.
    for entry in fs::read_dir("/etc").expect("the machine's /etc").flatten() {
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        if name == "alternatives" || name.starts_with("java-") {
            args.push(format!("--volume=/etc/{name}:/etc/{name}:ro"));
        }
    }
    let limits = ["--cpuset-cpus=0", "--memory", &memory, "--memory-swap", &memory];
    let container = Container::new(BUSYBOX).args(limits).args(args).start(["sleep", "1000"]);
    let parsed = |text: &str| -> serde_json::Value {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };

    // Each prints how many CPUs and how many bytes it believes in.
    for script in [
        "node -p 'const os = require(\"os\"); os.cpus().length + \" \" + os.totalmem()'",
        // Go's view.
        "podman info --format '{{.Host.CPUs}} {{.Host.MemTotal}}'",
        "java -Xlog:gc+init -version 2>/dev/null | awk '/CPUs:/ { cpus = $(NF - 1) } \
         /Memory:/ { print cpus, int($NF) * 1048576 }'",
        "numactl -H | awk '/cpus:/ { cpus = NF - 3 } /size:/ { print cpus, $4 * 1048576 }'",
    ] {
        assert_eq!(container.sh(script).ok(), format!("1 {MEMORY}"), "{script}");
    }
    // A terminal of its own is what htop wants; it runs until it is asked to end.
    let htop = ["sh", "-c", "TERM=xterm timeout --foreground --signal INT 3 htop --no-color; true"];
    let screen = container.exec(&["--tty"], htop).ok();
    assert!(screen.contains("/1.00G"), "{screen}");

    Cmd::docker(["exec", "--detach", &container.name, "sh", "-c", "while :; do :; done"]).ok();
    let reports = [
        ("mpstat -o JSON 3 1", "cpu-load", ["usr", "nice", "sys"]),
        ("iostat -y -c -o JSON 3 1", "avg-cpu", ["user", "nice", "system"]),
    ];
    for (script, part, busy) in reports {
        // The kernel's own account says what is true: on a busy host the loop has no CPU to itself. It is
        // looked at right before and after, in there: a `docker exec` takes its time, too.
        let account = "echo $(sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat; cut -d ' ' -f 1 /proc/uptime)";
        let script = format!("{account}; report=$(LC_ALL=C {script}); {account}; echo \"$report\"");
        let told = container.sh(&script).ok();
        let mut lines = told.splitn(3, '\n');
        let mut account = || -> (f64, f64) {
            let line = lines.next().and_then(|line| line.split_once(' '));
            let (usage, uptime) = line.unwrap_or_else(|| panic!("{script}: {told}"));
            (usage.parse::<f64>().expect("a number") / 1e6, uptime.parse().expect("a number"))
        };
        let ((before, begun), (after, ended)) = (account(), account());
        let truth = (after - before) / (ended - begun) * 100.0;
        let report = parsed(lines.next().unwrap_or_default());
        let load = &report["sysstat"]["hosts"][0]["statistics"][0][part];
        let load = load.get(0).unwrap_or(load);
        let shown: f64 = busy.iter().filter_map(|name| load[name].as_f64()).sum();
        let near = (shown - truth).abs() <= 7.0;
        assert!(near, "{script}: {shown:.1} %, true is {truth:.1} %\n{report}");
    }
    // What everybody reads and writes on the host's disks is not shown.
    let disks = parsed(&container.sh("LC_ALL=C iostat -d -o JSON").ok());
    let disks = disks["sysstat"]["hosts"][0]["statistics"][0]["disk"].clone();
    assert_eq!(disks, serde_json::json!([]));
}
