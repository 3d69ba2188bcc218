//! A data root without room: new containers are refused, nothing of the others is lost.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::host::Host;
use crate::need_root;

/// A small file system, mounted until this is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(image: &Path, at: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(4 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let run = |program: &str, args: &[&Path]| {
            let status = Command::new(program).args(args).status().unwrap();
            assert!(status.success(), "{program} {args:?}");
        };
        run("mkfs.ext4", &[Path::new("-q"), image]);
        run("mount", &[Path::new("-o"), Path::new("loop"), image, at]);
        Self(at.to_owned())
    }

    /// Writes until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).and_then(|()| file.sync_all()).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_what_is_new_and_keeps_what_is_there() {
    need_root!();
    let mut host = Host::without_daemon();
    host.fs = crate::fake_fs::start(&host.run_dir());
    let disk = Small::mount(&host.path("disk.img"), &host.path("data"));
    host.start();
    let (registered, _init) = host.run(&host.request_with_volume("c1"));
    let volume = Path::new(&registered.volumes[0].source);
    fs::write(volume.join("inner"), "data").unwrap();
    let filler = disk.fill();

    for request in [host.request("c2"), host.request_with_volume("c3")] {
        let error = host.client().register(&request).unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
    }
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    // The manager starts without room, too, and finds all as it was.
    host.stop(Signal::KILL);
    host.start();
    assert_eq!(host.state("c1").as_deref(), Some("running"));
    assert_eq!((host.state("c2"), host.state("c3")), (None, None));
    assert_eq!(fs::read(volume.join("inner")).unwrap(), b"data");
    assert!(host.records().iter().all(|name| !name.ends_with(".corrupt")), "{:?}", host.records());

    fs::remove_file(filler).unwrap();
    let (_, _second) = host.run(&host.request("c2"));
    assert_eq!(host.state("c2").as_deref(), Some("running"));
    host.stop(Signal::TERM);
}
