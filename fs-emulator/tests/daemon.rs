//! What the files of the real daemon say, read from inside a real cgroup. Needs root.

mod support;

use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use support::{Cgroup, Place, container, is_pressure, is_root, is_setting};

fn kib(meminfo: &str, field: &str) -> u64 {
    let line = meminfo.lines().find(|l| l.starts_with(&format!("{field}:"))).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn files_tell_of_the_container() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("files"));
    let unlimited = Cgroup::new("unlimited");
    cgroup.set("memory", ("memory.limit_in_bytes", "104857600"), ("memory.max", "104857600"));
    cgroup.set("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
    let daemon = place.start();
    let (dir, files) = daemon.add(container("one", 1, &cgroup));
    assert_eq!(daemon.add(container("one", 1, &cgroup)).0, dir);
    let (other_dir, _) = daemon.add(container("two", 2, &unlimited));
    let dir = place.path(&dir);
    assert!(files.contains(&"proc/meminfo".to_owned()));

    // Every file reads fully for every kind of reader, and looks like a file of procfs.
    for file in files.iter().filter(|file| !is_setting(file)) {
        let path = dir.join(file);
        let shown = path.display();
        let text = cgroup.output(&format!("cat {shown}"));
        // This container touched no disk.
        assert_eq!(text.is_empty(), file == "proc/diskstats", "{file}");
        let small = cgroup.output(&format!("dd bs=7 status=none if={shown}"));
        assert_eq!(small.lines().count(), text.lines().count(), "{file}");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (231072, 231073));
        if is_pressure(file) {
            continue;
        }
        assert_eq!(metadata.mode(), 0o100444);
        let writing = fs::OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(
            writing.raw_os_error(),
            Some(rustix::io::Errno::ACCESS.raw_os_error()),
            "{file}"
        );
    }

    let meminfo = cgroup.output(&format!("cat {}", dir.join("proc/meminfo").display()));
    assert_eq!(kib(&meminfo, "MemTotal"), 102400);
    assert!(kib(&meminfo, "MemFree") <= 102400);
    let native = fs::read_to_string("/proc/meminfo").unwrap();
    let names = |text: &str| {
        text.lines().map(|l| l.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&meminfo), names(&native));

    let cpus = fs::read_to_string(dir.join("sys/devices/system/cpu/online")).unwrap();
    assert_eq!(cpus, "0\n");
    let cpuinfo = fs::read_to_string(dir.join("proc/cpuinfo")).unwrap();
    assert_eq!(cpuinfo.matches("processor\t:").count(), 1);
    let stat = fs::read_to_string(dir.join("proc/stat")).unwrap();
    assert_eq!(stat.matches("cpu").count(), 2, "{stat}");
    let uptime = fs::read_to_string(dir.join("proc/uptime")).unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((60.0..90.0).contains(&seconds), "{uptime}");

    // Without limits: the host's size.
    let other = place.path(&other_dir).join("proc/meminfo");
    assert_eq!(kib(&fs::read_to_string(other).unwrap(), "MemTotal"), kib(&native, "MemTotal"));

    // A limit that changes is seen at the next reading, also by a reader that goes back.
    let mut open = fs::File::open(dir.join("proc/meminfo")).unwrap();
    cgroup.set("memory", ("memory.limit_in_bytes", "209715200"), ("memory.max", "209715200"));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(kib(&text, "MemTotal"), 102400, "the text of an open file does not change");
    open.rewind().unwrap();
    text.clear();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(kib(&text, "MemTotal"), 204800, "going back makes a new one");

    // Removed containers are gone, the others are not.
    daemon.remove("one");
    assert!(fs::read_to_string(dir.join("proc/meminfo")).is_err());
    daemon.remove("one");
    daemon.remove("two");
    daemon.terminate();
    assert!(!place.run_dir.path().join("sysfs-hold.sock").exists());
}

#[test]
fn cpu_time_never_goes_backwards_and_adds_up() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("cpu"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("busy", 9, &cgroup));
    let path = place.path(&dir).join("proc/stat");
    let read = || -> Vec<u64> {
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().next().unwrap();
        line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect()
    };
    let mut burner = cgroup.shell("while :; do :; done").spawn().unwrap();
    let begun = Instant::now();
    let mut last = read();
    let first = last.clone();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let next = read();
        assert!(last.iter().zip(&next).all(|(a, b)| a <= b), "{last:?} then {next:?}");
        last = next;
    }
    // In ticks; more than two seconds where the machine is busy.
    let took = begun.elapsed().as_millis() as u64 / 10;
    burner.kill().unwrap();
    burner.wait().unwrap();
    let busy: u64 = (0..3).map(|i| last[i] - first[i]).sum();
    let all: u64 = (0..4).map(|i| last[i] - first[i]).sum();
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    // The time that it took, on each CPU. The burner may have had to wait for other work.
    assert!((20..=took + 30).contains(&busy), "{busy} of {took}");
    assert!((all).abs_diff(took * cpus) <= 40 * cpus, "{all} of {took}");
    daemon.remove("busy");
    daemon.terminate();
}

#[test]
fn an_inner_container_sees_its_own_limit() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("outer"));
    let inner = cgroup.inner();
    let limit = |cgroup: &Cgroup, bytes: &str| {
        cgroup.set("memory", ("memory.limit_in_bytes", bytes), ("memory.max", bytes));
    };
    limit(&cgroup, "104857600");
    let daemon = place.start();
    let (dir, _) = daemon.add(container("outer", 1, &cgroup));
    let read = format!("cat {}", place.path(&dir).join("proc/meminfo").display());
    let total = |cgroup: &Cgroup| kib(&cgroup.output(&read), "MemTotal");
    assert_eq!(total(&inner), 102400, "none of its own");
    limit(&inner, "52428800");
    assert_eq!(total(&inner), 51200);
    assert_eq!(total(&cgroup), 102400);
    daemon.remove("outer");
    daemon.terminate();
}

#[test]
fn the_container_root_reads_but_does_not_write() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("root"));
    fs::set_permissions(place.run_dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let daemon = place.start();
    let (dir, _) = daemon.add(container("c", 1, &cgroup));
    // A file mounted over another one, as the runtime does it, for the owner in a user namespace.
    let script = format!(
        "touch /tmp/meminfo.$$; mount --bind {dir}/proc/meminfo /tmp/meminfo.$$
         setpriv --reuid 231072 --regid 231073 --clear-groups unshare --user --map-root-user sh -euc '
             stat -c %u:%g:%a $0; cat $0; cat $0 | wc -l; busybox cat $0 | wc -l
             head -c 5 $0; tail -n 1 $0 | wc -l; cp $0 $0.copy; wc -l < $0.copy; rm $0.copy
             grep -c : $0; tac $0 | wc -l; dd if=$0 bs=1 status=none | wc -l
             test $(wc -c < $0) = $(cat $0 | wc -c)
             for how in \"true > $0\" \"true >> $0\" \"chmod 666 $0\" \"touch $0\"; do
                 if eval $how 2>/dev/null; then echo $how works; exit 1; fi
             done' /tmp/meminfo.$$
         umount /tmp/meminfo.$$; rm /tmp/meminfo.$$"
    );
    let output = place.shell(&script.replace("\\\"", "\"")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    let lines = fs::read_to_string("/proc/meminfo").unwrap().lines().count();
    assert!(text.starts_with("0:0:444\nMemTotal:"), "{text}");
    let end = format!("\n{lines}\n{lines}\nMemTo1\n{lines}\n{lines}\n{lines}\n{lines}\n");
    assert!(text.ends_with(&end), "{text}");
    daemon.remove("c");
    daemon.terminate();
}
