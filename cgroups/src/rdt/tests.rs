//! On a directory tree that looks like resctrl on a machine with two L3 caches. The kernel makes the files
//! of a new directory; here they are made by the first write.

use super::*;

struct Fake(tempfile::TempDir);

impl Fake {
    fn new() -> Fake {
        let fake = Fake(tempfile::tempdir().unwrap());
        for (file, text) in [
            ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
            ("tasks", "1\n2\n"),
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "fffff\n"),
            ("info/L3/min_cbm_bits", "2\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
        ] {
            fake.write(file, text);
        }
        fake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        fs::write(self.path(file), text).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn plan(&self, json: &str) -> Result<Group> {
        Group::plan(&Resctrl::at(self.0.path()), "c1", &wanted(json))
    }

    fn create(&self, json: &str) -> Group {
        let group = self.plan(json).unwrap();
        group.create(&wanted(json)).unwrap();
        group
    }

    fn refusal(&self, json: &str) -> String {
        self.plan(json).unwrap_err().to_string()
    }
}

fn wanted(json: &str) -> LinuxIntelRdt {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_class_of_its_own_goes_with_the_container() {
    let fake = Fake::new();
    let json = r#"{"l3CacheSchema": "L3:0=7f0;1=1f", "memBwSchema": "MB:0=20"}"#;
    let group = fake.plan(json).unwrap();
    assert!(!fake.path("c1").exists(), "a plan changes nothing");
    group.create(&wanted(json)).unwrap();
    assert_eq!(fake.read("c1/schemata"), "L3:0=7f0;1=1f\nMB:0=20\n");
    group.add(77).unwrap();
    assert_eq!(fake.read("c1/tasks"), "77");
    // What is stored finds it again.
    let stored = serde_json::to_string(&group).unwrap();
    assert_eq!(serde_json::from_str::<Group>(&stored).unwrap(), group);
    group.remove().unwrap();
    assert!(!fake.path("c1").exists());
    group.remove().unwrap();
}

#[test]
fn one_that_somebody_else_has_made_stays() {
    let fake = Fake::new();
    fs::create_dir(fake.path("c1")).unwrap();
    let group = fake.create(r#"{"l3CacheSchema": "L3:0=3"}"#);
    assert_eq!(fake.read("c1/schemata"), "L3:0=3\n");
    group.remove().unwrap();
    group.undo();
    assert!(fake.path("c1").exists());
}

#[test]
fn a_named_class_is_joined_and_stays() {
    let fake = Fake::new();
    let message = fake.refusal(r#"{"closID": "gold"}"#);
    assert!(message.starts_with("linux.intelRdt.closID: clos dir not accessible"), "{message}");
    assert!(message.contains("gold does not exist"), "{message}");

    fake.write("gold/schemata", "    MB:0=100;1=100\n    L3:0=007f0;1=0001f\n");
    fake.write("gold/tasks", "");
    let group = fake.create(r#"{"closID": "gold"}"#);
    group.add(5).unwrap();
    assert_eq!(fake.read("gold/tasks"), "5");
    let before = fake.read("gold/schemata");
    fake.create(r#"{"closID": "gold", "schemata": ["L3:0=7f0"]}"#);
    assert_eq!(fake.read("gold/schemata"), before, "one that fits is not written");
    let message = fake.refusal(r#"{"closID": "gold", "l3CacheSchema": "L3:0=f"}"#);
    assert!(message.contains("exists with another schemata than \"L3:0=f\""), "{message}");
    group.remove().unwrap();
    group.undo();
    assert!(fake.path("gold").exists());
}

#[test]
fn a_named_class_is_made_once_and_undone_while_unused() {
    let fake = Fake::new();
    let json = r#"{"closID": "new", "schemata": ["L3:0=f", "MB:0=50"]}"#;
    let group = fake.create(json);
    assert_eq!(fake.read("new/schemata"), "L3:0=f\nMB:0=50\n");
    group.add(9).unwrap();
    group.remove().unwrap();
    group.undo();
    assert!(fake.path("new").exists(), "somebody is in it");
    fake.write("new/tasks", "");
    group.remove().unwrap();
    assert!(fake.path("new").exists(), "it stays when a container goes");
    group.undo();
    assert!(!fake.path("new").exists());
}

#[test]
fn the_root_class() {
    let fake = Fake::new();
    fs::create_dir(fake.path("mon_groups")).unwrap();
    let group = fake.create(r#"{"closID": "/", "enableMonitoring": true}"#);
    group.add(7).unwrap();
    assert_eq!((fake.read("tasks"), fake.read("mon_groups/c1/tasks")), ("7".into(), "7".into()));
    group.remove().unwrap();
    group.undo();
    assert!(fake.path("schemata").exists() && !fake.path("mon_groups/c1").exists());
}

#[test]
fn monitoring_groups() {
    // The last two as oci-spec has them, whose names `tolerate` of the runtime corrects.
    for (name, field) in [
        ("enableMonitoring", "enableMonitoring"),
        ("enableCmt", "enableCMT"),
        ("enableMbm", "enableMBM"),
    ] {
        let fake = Fake::new();
        fs::create_dir_all(fake.path("gold/mon_groups")).unwrap();
        let group = fake.create(&format!("{{\"closID\": \"gold\", \"{name}\": true}}"));
        group.add(3).unwrap();
        assert_eq!(fake.read("gold/mon_groups/c1/tasks"), "3");
        group.remove().unwrap();
        assert!(!fake.path("gold/mon_groups/c1").exists() && fake.path("gold").exists());
        fs::remove_dir_all(fake.path("info/L3_MON")).unwrap();
        let message = fake.refusal(&format!("{{\"{name}\": true}}"));
        assert!(message.starts_with(&format!("linux.intelRdt.{field}: ")), "{message}");
    }
}

#[test]
fn what_the_machine_lacks_is_refused_by_name() {
    let fake = Fake::new();
    fs::remove_dir_all(fake.path("info/L3")).unwrap();
    fs::remove_dir_all(fake.path("info/MB")).unwrap();
    let message = fake.refusal(r#"{"l3CacheSchema": "L3:0=f"}"#);
    let start = "linux.intelRdt.l3CacheSchema: Intel RDT/CAT is not enabled";
    assert!(message.starts_with(start), "{message}");
    let message = fake.refusal(r#"{"memBwSchema": "MB:0=10"}"#);
    let start = "linux.intelRdt.memBwSchema: Intel RDT/MBA is not enabled";
    assert!(message.starts_with(start), "{message}");
    // Caches with separate masks for code and data.
    fs::create_dir_all(fake.path("info/L3CODE")).unwrap();
    fake.plan(r#"{"l3CacheSchema": "L3CODE:0=f"}"#).unwrap();
    let named = Group::plan(&Resctrl::at(fake.0.path()), "info", &wanted("{}"));
    assert!(named.unwrap_err().to_string().contains("cannot name a class"));
}

#[test]
fn a_refusal_of_the_kernel_is_told_and_leaves_nothing() {
    let fake = Fake::new();
    // The kernel says more in this file than by the error number.
    fake.write("info/last_cmd_status", "mask f7 has non-consecutive 1-bits\n");
    // A write that fails: the monitoring group has no place.
    let json = r#"{"l3CacheSchema": "L3:0=f7", "enableMonitoring": true}"#;
    let group = fake.plan(json).unwrap();
    let message = group.create(&wanted(json)).unwrap_err().to_string();
    assert!(message.contains("last_cmd_status: mask f7 has non-consecutive 1-bits"), "{message}");
    assert!(message.contains("mon_groups/c1: No such file"), "{message}");
    assert!(!fake.path("c1").exists());

    fake.write("gold/tasks", "");
    let group = fake.plan(r#"{"closID": "gold"}"#).unwrap();
    fs::remove_dir_all(fake.path("gold")).unwrap();
    let message = group.add(12).unwrap_err().to_string();
    assert!(message.starts_with("linux.intelRdt: add process 12 to "), "{message}");
    assert!(!group.exists());
}

#[test]
fn limits_are_changed() {
    let fake = Fake::new();
    let group = fake.create("{}");
    assert!(!fake.path("c1/schemata").exists(), "nothing was asked for");
    group.update("L3:0=3", "").unwrap();
    assert_eq!(fake.read("c1/schemata"), "L3:0=3\n");
    group.update("L3:0=3", "MB:1=20").unwrap();
    assert_eq!(fake.read("c1/schemata"), "L3:0=3\nMB:1=20\n");
    fs::remove_dir_all(fake.path("info/MB")).unwrap();
    assert!(group.update("", "MB:1=20").unwrap_err().to_string().contains("MBA is not enabled"));
}

#[test]
fn all_threads_of_running_processes() {
    let fake = Fake::new();
    let group = fake.create("{}");
    // One that is gone, and ourselves, with the threads of the test.
    group.add_all(&[i32::MAX, std::process::id() as i32]).unwrap();
    let last: i32 = fake.read("c1/tasks").parse().unwrap();
    assert!(Path::new(&format!("/proc/self/task/{last}")).exists() || last > 0);
}

#[test]
fn statistics_are_those_of_runc() {
    let fake = Fake::new();
    let group = fake.create(r#"{"l3CacheSchema": "L3:0=f;1=f", "memBwSchema": "MB:0=20;1=20"}"#);
    fake.write("c1/mon_data/mon_L3_01/llc_occupancy", "200\n");
    fake.write("c1/mon_data/mon_L3_00/llc_occupancy", "100\n");
    fake.write("c1/mon_data/mon_L3_00/mbm_total_bytes", "7\n");
    fake.write("c1/mon_data/mon_L3_00/mbm_local_bytes", "Unavailable\n");
    let expected = serde_json::json!({
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff;1=fffff",
        "l3_cache_schema": "L3:0=f;1=f",
        "mem_bw_info": {
            "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8
        },
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "MB:0=20;1=20",
        "mbm_stats": [
            {"mbm_total_bytes": 7, "mbm_local_bytes": 0},
            {"mbm_total_bytes": 0, "mbm_local_bytes": 0}
        ],
        "cmt_stats": [{"llc_occupancy": 100}, {"llc_occupancy": 200}]
    });
    assert_eq!(serde_json::to_value(group.stats()).unwrap(), expected);
}

#[test]
fn a_machine_without_it_says_how_to_mount_it() {
    // Where the machine has it, there is nothing to see.
    if let Err(error) = Resctrl::find() {
        let message = error.to_string();
        assert!(message.starts_with("linux.intelRdt: "), "{message}");
        assert!(message.contains("mount -t resctrl resctrl /sys/fs/resctrl"), "{message}");
    }
}
