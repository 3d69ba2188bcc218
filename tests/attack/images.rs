//! Images that are not what they seem: links where directories should be, devices that are files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sysbox_tests::{Cmd, Container, alone, shared};

use crate::tool;

/// An image with the attacker and a shell, and what `change` does to it.
struct Image {
    tag: String,
}

impl Image {
    fn new(name: &str, change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "lib64", "usr"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        fs::copy(tool::program(), root.join("attacker")).expect("the attacker");
        for library in libraries() {
            let to = root.join(library.strip_prefix("/").expect("an absolute path"));
            fs::create_dir_all(to.parent().expect("a directory")).expect("mkdir");
            fs::copy(&library, to).expect("a library");
        }
        change(&root);
        let archive = dir.path().join("archive");
        let (root, archive) = (root.display().to_string(), archive.display().to_string());
        Cmd::new("tar", ["-C", &root, "--numeric-owner", "-cf", &archive, "."]).ok();
        let tag = format!("attack-{}-{name}", std::process::id());
        Cmd::docker(["import", &archive, &tag]).ok();
        Self { tag }
    }

    /// Either the runtime refuses the image, or what is in /dev, /proc and /sys is the kernel's.
    #[track_caller]
    fn is_refused_or_right(&self, options: &[&str]) {
        let output = Container::new(&self.tag).args(options).run(["/attacker", "layout"]);
        println!("{}: {output}", self.tag);
        if output.stdout.contains("attempts,") {
            tool::judge(output, 4);
        } else {
            assert!(!output.success(), "neither refused nor run: {output}");
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        Cmd::docker(["rmi", "--force", &self.tag]).run();
    }
}

/// The shared libraries that the attacker is linked with, by the loader's own account.
fn libraries() -> Vec<PathBuf> {
    let program = tool::program().display().to_string();
    let listed = Cmd::new("ldd", [&program]).ok();
    let paths = listed.lines().filter_map(|line| {
        let place = line.split("=>").last()?.trim().split(' ').next()?;
        place.starts_with('/').then(|| PathBuf::from(place))
    });
    paths.collect()
}

fn replace_by_link(root: &Path, name: &str, target: &str) {
    fs::remove_dir_all(root.join(name)).expect("removing");
    symlink(target, root.join(name)).expect("symlink");
}

#[test]
fn links_in_place_of_directories() {
    let _world = alone();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count();
    let before = mounts();
    for name in ["proc", "sys", "dev"] {
        for target in ["/tmp", "../../../../../../tmp", "/proc/self/cwd", "/nowhere"] {
            let image =
                Image::new(&format!("link-{name}"), |root| replace_by_link(root, name, target));
            image.is_refused_or_right(&[]);
        }
    }
    assert_eq!(mounts(), before, "mounts outside of the containers");
}

#[test]
fn devices_that_are_files_or_links() {
    let _world = shared();
    let fakes =
        [("null", "/etc/host.conf"), ("console", "/tmp/x"), ("pts", "/tmp"), ("ptmx", "/tmp/x")];
    for (name, target) in fakes {
        let image = Image::new(&format!("fake-{name}"), |root| {
            symlink(target, root.join("dev").join(name)).expect("symlink");
        });
        image.is_refused_or_right(&[]);
        image.is_refused_or_right(&["--tty"]);
    }
    let image = Image::new("file-null", |root| {
        fs::write(root.join("dev/null"), "not a device").expect("write");
    });
    image.is_refused_or_right(&[]);
    let image = Image::new("full-proc", |root| {
        fs::create_dir_all(root.join("proc/self")).expect("mkdir");
        fs::write(root.join("proc/self/status"), "CapEff: ffffffffffffffff").expect("write");
        fs::write(root.join("proc/meminfo"), "MemTotal: 1 kB").expect("write");
    });
    image.is_refused_or_right(&[]);
}

#[test]
fn volumes_on_links_that_lead_out() {
    let _world = shared();
    let dir = tempfile::tempdir().expect("a directory");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    let target = outside.display().to_string();
    let image = Image::new("out", |root| {
        symlink(&target, root.join("absolute")).expect("symlink");
        symlink(format!("../../../../../../..{target}"), root.join("relative")).expect("symlink");
    });
    for name in ["absolute/v", "relative/v", "absolute", "relative"] {
        let volume = format!("/tmp:/{name}");
        image.is_refused_or_right(&["--volume", &volume]);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "made outside: {name}");
    }
}
