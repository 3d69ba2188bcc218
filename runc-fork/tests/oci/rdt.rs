//! `linux.intelRdt`, on a directory tree that looks like the kernel's resctrl file system: the machines of
//! the tests have none. A debug build takes `SYSBOX_RESCTRL` for its root.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Case;
use crate::bundle::Bundle;
use crate::world::{Finished, World};

pub const CASES: &[Case] = &[
    ("rdt::a_machine_without_it_says_how_to_mount_it", missing),
    ("rdt::a_class_of_its_own", own_class),
    ("rdt::a_class_that_others_have_made", named_class),
    ("rdt::update_gives_a_class", update),
    ("rdt::failures_leave_nothing", failures),
];

/// The tree, as on a machine with one L3 cache.
struct Resctrl<'a> {
    world: &'a World,
    root: PathBuf,
}

impl<'a> Resctrl<'a> {
    fn new(world: &'a World, name: &str) -> Self {
        let root = world.path("resctrl").join(name);
        let files = [
            ("schemata", "    MB:0=100\n    L3:0=fff\n"),
            ("info/L3/cbm_mask", "fff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\n"),
            ("gold/schemata", "    MB:0=100\n    L3:0=00f\n"),
            ("gold/tasks", ""),
            ("gold/mon_groups/none/tasks", ""),
        ];
        for (file, text) in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        Self { world, root }
    }

    /// Runs the runtime with this tree.
    fn runtime(&self, arguments: &[&str]) -> Finished {
        let mut command = self.world.command(arguments);
        command.env("SYSBOX_RESCTRL", &self.root);
        self.world.finish(command)
    }

    fn start(&self, bundle: &Bundle) -> Finished {
        bundle.write();
        self.runtime(&["run", "-d", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id])
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }
}

fn with_rdt<'a>(world: &'a World, name: &str, rdt: Value) -> Bundle<'a> {
    let mut bundle = Bundle::sleeping(world, name);
    bundle.spec["linux"]["intelRdt"] = rdt;
    bundle
}

fn missing(world: &World) {
    if fs::read_to_string("/proc/mounts").unwrap().contains(" resctrl ") {
        return;
    }
    let bundle = with_rdt(world, "rdt-none", json!({"l3CacheSchema": "L3:0=f"}));
    let words = "linux.intelRdt: Intel RDT is not available: no resctrl file system is mounted (mount -t \
                 resctrl resctrl /sys/fs/resctrl)";
    bundle.run().fails(1, words);
    assert!(!world.path("root").join(&bundle.id).exists());
    let bundle = Bundle::sleeping(world, "rdt-no-update");
    bundle.start();
    let done = bundle.call(&["update", "--mem-bw-schema", "MB:0=10"], &[]);
    done.fails(1, "mount -t resctrl resctrl /sys/fs/resctrl");
}

fn own_class(world: &World) {
    let resctrl = Resctrl::new(world, "own");
    let rdt = json!({"l3CacheSchema": "L3:0=f0", "memBwSchema": "MB:0=20"});
    let bundle = with_rdt(world, "rdt-own", rdt);
    let file = |name: &str| format!("{}/{name}", bundle.id);
    resctrl.start(&bundle).ok();
    assert_eq!(resctrl.read(&file("schemata")), "L3:0=f0\nMB:0=20\n");
    assert_eq!(resctrl.read(&file("tasks")), bundle.pid().to_string());
    let pid_file = bundle.path("pid");
    resctrl.runtime(&["exec", "-d", "--pid-file", &pid_file, &bundle.id, "sleep", "1000"]).ok();
    assert_eq!(resctrl.read(&file("tasks")), fs::read_to_string(pid_file).unwrap());
    fs::create_dir_all(resctrl.root.join(file("mon_data/mon_L3_00"))).unwrap();
    fs::write(resctrl.root.join(file("mon_data/mon_L3_00/llc_occupancy")), "4096\n").unwrap();
    resctrl.runtime(&["update", "--l3-cache-schema", "L3:0=f", &bundle.id]).ok();
    let event = resctrl.runtime(&["events", "--stats", &bundle.id]).ok();
    let rdt = serde_json::from_str::<Value>(&event).unwrap()["data"]["intel_rdt"].clone();
    assert_eq!(rdt["l3_cache_schema"], "L3:0=f");
    assert_eq!(rdt["l3_cache_schema_root"], "L3:0=fff");
    assert_eq!(rdt["l3_cache_info"]["cbm_mask"], "fff");
    assert_eq!(rdt["cmt_stats"], json!([{"llc_occupancy": 4096}]));
    // Without the variable: what is to be removed is on disk.
    bundle.call(&["delete", "--force"], &[]).ok();
    assert!(!resctrl.has(&bundle.id) && resctrl.has("gold"));
}

fn named_class(world: &World) {
    let resctrl = Resctrl::new(world, "named");
    let rdt = json!({"closID": "gold", "schemata": ["L3:0=f"], "enableCMT": true});
    let bundle = with_rdt(world, "rdt-gold", rdt);
    resctrl.start(&bundle).ok();
    let pid = bundle.pid().to_string();
    let monitor = format!("gold/mon_groups/{}", bundle.id);
    assert_eq!(resctrl.read("gold/tasks"), pid);
    assert_eq!(resctrl.read(&format!("{monitor}/tasks")), pid);
    assert_eq!(resctrl.read("gold/schemata"), "    MB:0=100\n    L3:0=00f\n");
    bundle.call(&["delete", "--force"], &[]).ok();
    assert!(!resctrl.has(&monitor) && resctrl.has("gold/schemata"));
    let other = with_rdt(world, "rdt-other", json!({"closID": "gold", "schemata": ["L3:0=ff"]}));
    let words = "linux.intelRdt.closID: the class exists with another schemata than";
    resctrl.start(&other).fails(1, words);
    let absent = with_rdt(world, "rdt-absent", json!({"closID": "absent"}));
    resctrl.start(&absent).fails(1, "clos dir not accessible");
    assert!(!resctrl.has("absent"));
}

fn update(world: &World) {
    let resctrl = Resctrl::new(world, "update");
    let bundle = Bundle::sleeping(world, "rdt-update");
    bundle.start();
    assert!(!resctrl.has(&bundle.id));
    resctrl.runtime(&["update", "--mem-bw-schema", "MB:0=30", &bundle.id]).ok();
    assert_eq!(resctrl.read(&format!("{}/schemata", bundle.id)), "MB:0=30\n");
    assert_eq!(resctrl.read(&format!("{}/tasks", bundle.id)), bundle.pid().to_string());
    bundle.call(&["delete", "--force"], &[]).ok();
    assert!(!resctrl.has(&bundle.id));
}

fn failures(world: &World) {
    let resctrl = Resctrl::new(world, "failures");
    let mut bundle = with_rdt(world, "rdt-fail", json!({"l3CacheSchema": "L3:0=f"}));
    // Fails after the class was made.
    bundle.spec["hooks"] = json!({"prestart": [{"path": "/bin/false"}]});
    resctrl.start(&bundle).fails(1, "/bin/false");
    assert!(!resctrl.has(&bundle.id));
    // A runtime that dies there; what it has left goes with the rest.
    let bundle = with_rdt(world, "rdt-killed", json!({"l3CacheSchema": "L3:0=f"}));
    bundle.write();
    let crash = world.path("run/crash");
    fs::write(&crash, "create.cgroup").unwrap();
    let arguments = ["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id];
    let mut command = world.command(&arguments);
    command.env("SYSBOX_RESCTRL", &resctrl.root).env("SYSBOX_CRASH_FILE", &crash);
    assert_eq!(world.finish(command).code, None, "it dies");
    // Either is first: the manager, which sees its end, or this.
    bundle.call(&["delete", "--force"], &[]).ok();
    crate::world::wait_until("the class to go", || !resctrl.has(&bundle.id));
    fs::remove_dir_all(resctrl.root.join("info/MB")).unwrap();
    let lacking = with_rdt(world, "rdt-lacking", json!({"memBwSchema": "MB:0=10"}));
    resctrl.start(&lacking).fails(1, "linux.intelRdt.memBwSchema: Intel RDT/MBA is not enabled");
}
