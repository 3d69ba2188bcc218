//! Texts of the table's files over a made-up host: limits of the container and of readers inside.

use std::fs;
use std::path::{Path, PathBuf};

use sysbox_fs::container::{Container, Record};
use sysbox_fs::table::rows;
use sysbox_fs::view::View;
use sysbox_fs::view::host::Host;

const GIB: u64 = 1 << 30;
/// Thread id of the reader inside.
const READER: u32 = 77;

/// A host with eight CPUs and 64 GiB, and one container.
struct Fixture {
    root: tempfile::TempDir,
    v1: Vec<(String, String)>,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { root: tempfile::tempdir().unwrap(), v1: Vec::new() };
        let cgroups = fixture.root.path().join("cgroup");
        fixture.write(
            "proc/self/mountinfo",
            &format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw\n", cgroups.display()),
        );
        fixture.write(
            "proc/meminfo",
            "MemTotal:       67108864 kB\nMemFree:        60000000 kB\n\
             MemAvailable:   61000000 kB\nBuffers:          123456 kB\nCached:          9999999 kB\n\
             SwapTotal:       8388608 kB\nSwapFree:        8000000 kB\nDirty:              4242 kB\n\
             AnonPages:       5555555 kB\nMapped:           777777 kB\nShmem:            888888 kB\n\
             VmallocTotal:   34359738367 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n",
        );
        fixture.write("sys/devices/system/cpu/online", "0-7\n");
        let cpu = |i| format!("processor\t: {i}\nphysical id\t: 0\ncore id\t\t: {i}\n\n");
        fixture.write("proc/cpuinfo", &(0..8).map(cpu).collect::<String>());
        fixture.write(&format!("proc/{READER}/cgroup"), "0::/c/app/worker\n");
        fixture.write(&format!("proc/{READER}/status"), "Name:\tx\nNSpid:\t77\t12\t3\n");
        for dir in ["cgroup/c", "cgroup/c/app", "cgroup/c/app/worker"] {
            fixture.write(&format!("{dir}/cpu.stat"), "user_usec 2000000\nsystem_usec 1000000\n");
        }
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn v1(&mut self, controller: &str) {
        let dir = self.path(&format!("v1/{controller}"));
        self.v1.push((controller.into(), dir.to_str().unwrap().into()));
    }

    /// The text of a file for thread `reader`.
    fn text(&self, file: &str, reader: u32) -> String {
        self.text_in(("c", 1), file, reader)
    }

    /// The text of a file in the container with this id and key.
    fn text_in(&self, (id, key): (&str, u32), file: &str, reader: u32) -> String {
        let host = Host::new(self.root.path());
        let record = Record {
            id: id.into(),
            key,
            uid: 0,
            gid: 0,
            unified: self.path("cgroup/c").to_str().unwrap().into(),
            v1: self.v1.clone(),
            created_boottime_ns: 0,
            lifetime: String::new(),
        };
        let container = Container::new(record, &host);
        let row = rows().find(|row| row.path == file).unwrap();
        row.text(&View::new(&host, &container, reader))
    }

    fn kib(&self, field: &str, reader: u32) -> u64 {
        let text = self.text("proc/meminfo", reader);
        let line = text.lines().find(|l| l.starts_with(&format!("{field}:"))).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn cpus(&self, reader: u32) -> (String, usize, usize) {
        (
            self.text("sys/devices/system/cpu/online", reader),
            self.text("proc/cpuinfo", reader).matches("processor").count(),
            self.text("proc/stat", reader).lines().filter(|l| l.starts_with("cpu")).count() - 1,
        )
    }
}

#[test]
fn memory_by_the_tightest_limit_of_the_reader() {
    // Limits of the container, of "app" in it and of "worker" in that; what a reader in the
    // container's own cgroup and one in "worker" see, and whose use counts for the latter.
    let cases: &[([Option<u64>; 3], u64, u64, usize)] = &[
        ([None, None, None], 64, 64, 0),
        ([Some(4), None, None], 4, 4, 0),
        ([Some(4), Some(2), None], 4, 2, 1),
        ([Some(4), Some(2), Some(1)], 4, 1, 2),
        ([Some(4), Some(8), Some(4)], 4, 4, 0),
        ([None, None, Some(3)], 64, 3, 2),
        ([Some(100), None, None], 64, 64, 0),
    ];
    for (limits, own, inner, level) in cases {
        let fixture = Fixture::new();
        for (i, dir) in ["cgroup/c", "cgroup/c/app", "cgroup/c/app/worker"].iter().enumerate() {
            let limit = limits[i].map_or("max\n".into(), |gib| (gib * GIB).to_string());
            fixture.write(&format!("{dir}/memory.max"), &limit);
            fixture.write(&format!("{dir}/memory.current"), &((i as u64 + 1) << 20).to_string());
        }
        assert_eq!(fixture.kib("MemTotal", 0), own << 20, "{limits:?}");
        assert_eq!(fixture.kib("MemTotal", READER), inner << 20, "{limits:?}");
        let used = (*level as u64 + 1) << 10;
        assert_eq!(fixture.kib("MemFree", READER), (inner << 20) - used, "{limits:?}");
    }
}

#[test]
fn memory_fields_come_from_the_cgroup() {
    let fixture = Fixture::new();
    fixture.write("cgroup/c/memory.max", &GIB.to_string());
    fixture.write("cgroup/c/memory.current", &(2 * GIB).to_string());
    fixture.write("cgroup/c/memory.swap.max", &(1 << 20).to_string());
    fixture.write("cgroup/c/memory.swap.current", "4096");
    fixture.write(
        "cgroup/c/memory.stat",
        "anon 1048576\nfile 2097152\nfile_mapped 4096\nfile_dirty 8192\nshmem 12288\n\
         active_file 1048576\ninactive_file 1048576\nslab_reclaimable 1024\n",
    );
    let expected = [
        ("MemFree", 0), // never below, also while the limit is being lowered
        ("MemAvailable", 2049),
        ("Buffers", 0),
        ("Cached", 2048),
        ("SwapTotal", 1024),
        ("SwapFree", 1020),
        ("Dirty", 8),
        ("AnonPages", 1024),
        ("Mapped", 4),
        ("Shmem", 12),
        ("VmallocTotal", 34359738367),
    ];
    for (field, kib) in expected {
        assert_eq!(fixture.kib(field, 0), kib, "{field}");
    }
    let swaps = fixture.text("proc/swaps", 0);
    assert_eq!(swaps.lines().nth(1).unwrap().split_whitespace().nth(2), Some("1024"));
}

#[test]
fn cpus_agree_in_all_files() {
    // cpu.max and cpuset of the container, cpu.max of "app": CPUs of the container, of the reader.
    let cases = [
        ("max 100000", "", "max 100000", ("0-7", 8), ("0-7", 8)),
        ("150000 100000", "0-7", "max 100000", ("0-1", 2), ("0-1", 2)),
        ("max 100000", "2,5-6", "max 100000", ("2,5-6", 3), ("2,5-6", 3)),
        ("800000 100000", "2,5-6", "100000 100000", ("2,5-6", 3), ("2", 1)),
        ("1000 100000", "0-7", "max 100000", ("0", 1), ("0", 1)),
        ("nonsense", "nonsense", "", ("0-7", 8), ("0-7", 8)),
    ];
    for (max, set, inner_max, own, inner) in cases {
        let fixture = Fixture::new();
        fixture.write("cgroup/c/cpu.max", max);
        fixture.write("cgroup/c/cpuset.cpus.effective", set);
        fixture.write("cgroup/c/app/cpu.max", inner_max);
        for (reader, (list, count)) in [(0, own), (READER, inner)] {
            let list = format!("{list}\n");
            assert_eq!(fixture.cpus(reader), (list, count, count), "{max} {set} {inner_max}");
        }
    }
    let fixture = Fixture::new();
    fixture.write("cgroup/c/cpuset.cpus.effective", "2,5-6");
    let cpuinfo = fixture.text("proc/cpuinfo", 0);
    assert!(cpuinfo.contains("processor\t: 5\nphysical id\t: 0\ncore id\t\t: 5\n"), "{cpuinfo}");
    let stat = fixture.text("proc/stat", 0);
    assert!(stat.contains("\ncpu2 ") && stat.contains("\ncpu6 "), "{stat}");
    assert_eq!(fixture.text("sys/devices/system/cpu/present", 0), "2,5-6\n");
    fixture.write("sys/devices/system/cpu/possible", "0-15\n");
    assert_eq!(fixture.text("sys/devices/system/cpu/offline", 0), "0-1,3-4,7-15\n");
}

#[test]
fn names_of_the_machine() {
    let fixture = Fixture::new();
    let read = |container, file| fixture.text_in(container, file, READER);
    let uuid = |container| read(container, "sys/devices/virtual/dmi/id/product_uuid");
    let boot = |container| read(container, "proc/sys/kernel/random/boot_id");
    // The second key: the same container, started again.
    assert_eq!(uuid(("a", 1)), uuid(("a", 2)));
    assert_ne!(boot(("a", 1)), boot(("a", 2)));
    assert_ne!(uuid(("a", 1)), uuid(("b", 3)));
    assert_eq!(uuid(("a", 1)).trim_end().len(), 36);
}

#[test]
fn hybrid_hosts_take_limits_from_v1() {
    let mut fixture = Fixture::new();
    for controller in ["memory", "cpu", "cpuset", "pids", "blkio"] {
        fixture.v1(controller);
    }
    fixture.write("v1/memory/memory.limit_in_bytes", &GIB.to_string());
    fixture.write("v1/memory/memory.usage_in_bytes", &(1 << 20).to_string());
    fixture.write("v1/memory/memory.memsw.limit_in_bytes", "9223372036854771712");
    fixture.write("v1/memory/memory.stat", "cache 1\ntotal_cache 524288\ntotal_rss 262144\n");
    fixture.write("v1/cpu/cpu.cfs_quota_us", "-1");
    fixture.write("v1/cpu/cpu.cfs_period_us", "100000");
    fixture.write("v1/cpuset/cpuset.effective_cpus", "1,3");
    fixture.write("v1/pids/pids.current", "41");
    fixture.write("v1/blkio/blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 1\n");
    fixture.write("proc/diskstats", " 8 0 sda 9 9 9 9\n 8 16 sdb 9 9 9 9\n");
    assert_eq!(fixture.kib("MemTotal", READER), 1 << 20);
    assert_eq!(fixture.kib("MemFree", READER), (1 << 20) - 1024);
    assert_eq!(fixture.kib("Cached", 0), 512);
    assert_eq!(fixture.kib("SwapTotal", 0), 8388608);
    assert_eq!(fixture.cpus(READER), ("1,3\n".into(), 2, 2));
    fixture.write("v1/cpu/cpu.cfs_quota_us", "60000");
    assert_eq!(fixture.cpus(READER), ("1\n".into(), 1, 1));
    assert!(fixture.text("proc/loadavg", READER).ends_with(" 1/41 3\n"));
    let diskstats = fixture.text("proc/diskstats", 0);
    assert_eq!(diskstats, "   8       0 sda 3 0 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

#[test]
fn a_container_without_its_cgroup_still_reads() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.path("cgroup")).unwrap();
    assert_eq!(fixture.kib("MemTotal", READER), 64 << 20);
    assert_eq!(fixture.cpus(READER), ("0-7\n".into(), 8, 8));
    for row in rows() {
        let text = fixture.text(row.path, READER);
        assert!(text.is_empty() || text.ends_with('\n'), "{}", row.path);
    }
    // Nor does a host that tells nothing make it fail.
    fs::remove_dir_all(fixture.path("proc")).unwrap();
    fs::remove_dir_all(fixture.path("sys")).unwrap();
    rows().for_each(|row| drop(fixture.text(row.path, READER)));
}

#[test]
fn stat_lines_are_the_kernels() {
    let fixture = Fixture::new();
    fixture.write("cgroup/c/cpuset.cpus.effective", "0-1");
    let text = fixture.text("proc/stat", READER);
    let names: Vec<_> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
    let expected = ["cpu", "cpu0", "cpu1", "intr", "ctxt", "btime", "processes"];
    assert_eq!(names[..7], expected);
    assert_eq!(names[7..], ["procs_running", "procs_blocked", "softirq"]);
    assert!(text.starts_with("cpu  200 0 100 "), "{text}");
    assert!(text.contains("\ncpu1 100 0 50 "), "{text}");
    assert!(text.contains("\nprocesses 12\n"), "{text}");
    assert!(Path::new("/proc/stat").exists());
}
