//! A `sysbox-fs` that keeps account of what it is told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use sysbox_ipc::proto::{self, fs_reply::Result as Reply, fs_request::Call};
use sysbox_ipc::{Connection, Listener};

/// Containers that it was told of.
pub type Containers = Arc<Mutex<BTreeMap<String, proto::AddContainer>>>;

/// Listens in `run_dir` until the test process ends.
pub fn start(run_dir: &Path) -> Containers {
    let listener = Listener::bind(&run_dir.join("sysfs.sock")).unwrap();
    let containers = Containers::default();
    let known = Arc::clone(&containers);
    std::thread::spawn(move || {
        while let Ok(connection) = listener.accept() {
            let known = Arc::clone(&known);
            std::thread::spawn(move || serve(&connection, &known));
        }
    });
    containers
}

fn serve(connection: &Connection, known: &Containers) {
    // One log for all connections, as in the real one.
    static LEVEL: Mutex<String> = Mutex::new(String::new());
    let level = &LEVEL;
    while let Ok(Some(request)) = connection.receive::<proto::FsRequest>() {
        let result = match request.message.call.unwrap() {
            Call::AddContainer(add) => {
                let added = proto::Added {
                    emulated_dir: format!("/run/sysbox/fs/{}", add.key),
                    emulated_files: vec!["proc/meminfo".into()],
                };
                known.lock().unwrap().insert(add.id.clone(), add);
                Reply::Added(added)
            }
            Call::RemoveContainer(remove) => {
                known.lock().unwrap().remove(&remove.id);
                Reply::Ok(proto::Empty {})
            }
            Call::Sysinfo(_) => Reply::Sysinfo(proto::Sysinfo::default()),
            Call::SetLogLevel(set) => {
                *level.lock().unwrap() = set.level;
                Reply::Ok(proto::Empty {})
            }
            Call::Status(_) => Reply::Status(proto::FsStatus {
                version: "fake".into(),
                pid: std::process::id() as i32,
                containers: known.lock().unwrap().keys().cloned().collect(),
                resources: Some(proto::Resources {
                    descriptors: 7,
                    starts: 3,
                    ..Default::default()
                }),
                reads: Some(proto::Histogram { counts: vec![5; 13], sum_ns: 2_000_000_000 }),
                errors: 9,
                log_level: level.lock().unwrap().clone(),
            }),
        };
        connection.send(&proto::FsReply { result: Some(result) }, &[]).unwrap();
    }
}
