//! Settings of the host, as containers write and read them. Needs root.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sysbox_ipc::proto::AddContainer;

use support::{Cgroup, Place, container, is_root, is_setting};

/// Texts that no setting takes, and texts that some do.
const TEXTS: [&str; 6] = ["1\n", "2", "0", "-1", "junk", "always"];

/// Values that nobody but the kernel changes: counters, and what processes do all the time.
const COUNTERS: [&str; 9] = [
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "fs/aio-nr",
    "kernel/ns_last_pid",
    "kernel/random",
    "kernel/pty/nr",
];

/// All that the host's files of settings say.
fn host_settings() -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut open = vec![Path::new("/proc/sys").to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix("/proc/sys").unwrap().to_str().unwrap().to_owned();
            // The network's belong to namespaces that come and go.
            if name == "net" || COUNTERS.iter().any(|c| name.starts_with(c)) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                texts.insert(name, text);
            }
        }
    }
    for name in ["mm/transparent_hugepage/enabled", "mm/transparent_hugepage/defrag"] {
        let text = fs::read_to_string(Path::new("/sys/kernel").join(name)).unwrap_or_default();
        texts.insert(name.to_owned(), text);
    }
    texts
}

#[test]
fn whatever_is_written_the_host_stays() {
    if !is_root() {
        return;
    }
    let before = host_settings();
    let (place, cgroup) = (Place::new(), Cgroup::new("settings"));
    let daemon = place.start();
    let (dir, files) = daemon.add(container("one", 1, &cgroup));
    let (other, _) = daemon.add(container("two", 2, &cgroup));
    let (dir, other) = (place.path(&dir), place.path(&other));
    let settings: Vec<_> = files.iter().filter(|file| is_setting(file)).collect();
    assert!(settings.len() > 40);
    let mut changed = 0;
    for file in &settings {
        let (path, native) = (dir.join(file), Path::new("/").join(file));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions();
        if !file.starts_with("proc/sys/net/") && native.exists() {
            assert_eq!(mode(&path), mode(&native), "{file}");
        }
        let untouched = fs::read_to_string(other.join(file)).ok();
        for text in TEXTS {
            let old = fs::read_to_string(&path).ok();
            let new = match fs::write(&path, text) {
                Ok(()) => fs::read_to_string(&path).ok(),
                Err(error) => {
                    let errno = error.raw_os_error();
                    let known = [rustix::io::Errno::INVAL, rustix::io::Errno::PERM];
                    assert!(
                        known.iter().any(|e| Some(e.raw_os_error()) == errno),
                        "{file}: {error}"
                    );
                    assert_eq!(fs::read_to_string(&path).ok(), old, "{file}: {text:?} was refused");
                    continue;
                }
            };
            changed += usize::from(new != old);
        }
        assert_eq!(fs::read_to_string(other.join(file)).ok(), untouched, "{file}");
    }
    assert!(changed > 40, "{changed}");
    assert_eq!(host_settings(), before);
    for id in ["one", "two"] {
        daemon.remove(id);
    }
    daemon.terminate();
}

#[test]
fn settings_live_as_long_as_the_root_file_system() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("kept"));
    let mut daemon = place.start();
    let (dir, _) = daemon.add(container("kept", 1, &cgroup));
    let panic = place.path(&dir).join("proc/sys/kernel/panic");
    let native = fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    let boot_id = place.path(&dir).join("proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(&boot_id).unwrap();
    assert_ne!(id, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
    assert_eq!(fs::read_to_string(&panic).unwrap(), native);
    fs::write(&panic, "1234\n").unwrap();
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    daemon = place.start();
    assert_eq!(fs::read_to_string(&panic).unwrap(), "1234\n");
    assert_eq!(fs::read_to_string(&boot_id).unwrap(), id);
    // Started again, with and without an end in between: another boot of the same machine.
    daemon.add(container("kept", 2, &cgroup));
    daemon.remove("kept");
    let (dir, _) = daemon.add(container("kept", 3, &cgroup));
    let dir = place.path(&dir);
    assert_eq!(fs::read_to_string(dir.join("proc/sys/kernel/panic")).unwrap(), "1234\n");
    assert_ne!(fs::read_to_string(dir.join("proc/sys/kernel/random/boot_id")).unwrap(), id);
    // Another container of the same name.
    daemon.remove("kept");
    let other = AddContainer { lifetime: "other".into(), ..container("kept", 4, &cgroup) };
    let (dir, _) = daemon.add(other);
    let panic = place.path(&dir).join("proc/sys/kernel/panic");
    assert_eq!(fs::read_to_string(&panic).unwrap(), native);
    daemon.remove("kept");
    daemon.terminate();
}

/// An engine makes /proc/sys of an inner container read-only; what lies on it must be, too.
#[test]
fn read_only_surroundings_count() {
    if !is_root() {
        return;
    }
    let (place, cgroup) = (Place::new(), Cgroup::new("surroundings"));
    let daemon = place.start();
    let (dir, _) = daemon.add(container("c", 1, &cgroup));
    let script = format!(
        "unshare --mount sh -euc '
             mount --bind {dir}/proc/sys/kernel/panic /proc/sys/kernel/panic
             echo 5 > /proc/sys/kernel/panic; echo 6 >> /proc/sys/kernel/panic
             mount --rbind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
             if (echo 7 > /proc/sys/kernel/panic) 2>&1; then echo written; fi
             cat /proc/sys/kernel/panic'"
    );
    let output = place.shell(&script).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.ends_with("\n6\n"), "{text}");
    daemon.remove("c");
    daemon.terminate();
}
