//! The engine's view of the root file system (cp, diff, commit) agrees with the container's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use sysbox_tests::{BOOKWORM, BUSYBOX, Container, Engine, Feature, Running, shared};

#[test]
fn cp_into_and_out_of_a_running_container() {
    let _world = shared();
    let test = "rootfs::cp_into_and_out_of_a_running_container";
    if !Engine::current().has(test, &[Feature::CopyIntoRunning]) {
        return;
    }
    let container = Container::sleeping::<&str>([]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given");
    fs::write(&file, "from the host").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();

    copy(file.to_str().unwrap(), &format!("{}:/etc/given", container.name));
    assert_eq!(container.sh("cat /etc/given").ok(), "from the host");
    assert_eq!(container.sh("stat -c '%u:%g %a' /etc/given").ok(), "0:0 640");

    container.sh("echo changed >>/etc/given; echo mine >/etc/made; chown 1000 /etc/made").ok();
    assert_eq!(read_by_cp(&container, "/etc/given").unwrap(), "from the hostchanged\n");
    assert_eq!(read_by_cp(&container, "/etc/made").unwrap(), "mine\n");
}

/// The engine's mount and the container's share the files, but each has its own cache of names.
#[test]
fn cp_sees_what_changed_after_an_earlier_cp() {
    let _world = shared();
    let test = "rootfs::cp_sees_what_changed_after_an_earlier_cp";
    if !Engine::current().has(test, &[Feature::CopyOut]) {
        return;
    }
    let container = Container::sleeping::<&str>([]);
    for round in 0..3 {
        let path = format!("/etc/later-{round}");
        // The engine looks, finds nothing, and remembers that.
        read_by_cp(&container, "/etc/passwd").unwrap();
        read_by_cp(&container, &path).unwrap_err();
        container.sh(&format!("echo {round} >{path}")).ok();
        assert_eq!(read_by_cp(&container, &path).unwrap(), format!("{round}\n"));
        container.sh(&format!("rm {path}")).ok();
        read_by_cp(&container, &path).unwrap_err();
    }
}

#[test]
fn a_file_copied_in_shows_where_the_container_looked_in_vain() {
    let _world = shared();
    let container = Container::sleeping::<&str>([]);
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let name = format!("incoming-{round}");
        let file = dir.path().join(&name);
        fs::write(&file, &name).unwrap();
        container.sh(&format!("ls /etc; cat /etc/{name}")).fails();
        copy(file.to_str().unwrap(), &format!("{}:/etc/", container.name));
        assert_eq!(container.sh(&format!("cat /etc/{name}")).ok(), name);
    }
}

/// A directory that is in use (init's working directory) stays in the container's cache of names
/// whatever the engine does to the files.
#[test]
fn cp_into_a_directory_in_use_shows_and_leaves_it_writable() {
    let _world = shared();
    let container = Container::sleeping(["--workdir", "/usr/bin"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given");
    fs::write(&file, "given").unwrap();
    for place in ["/usr/bin", "/etc"] {
        copy(file.to_str().unwrap(), &format!("{}:{place}/", container.name));
        assert_eq!(container.sh(&format!("cat {place}/given")).ok(), "given");
        container.sh(&format!("echo own >{place}/own")).ok();
        assert_eq!(read_by_cp(&container, &format!("{place}/own")).unwrap(), "own\n");
    }
}

/// Programs and libraries that run keep the directories above them in the container's cache of names.
#[test]
fn cp_beside_a_directory_in_use_shows_and_leaves_it_writable() {
    let _world = shared();
    let container = Container::new(BOOKWORM).start(["sleep", "1000"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given");
    fs::write(&file, "given").unwrap();
    let changed = |place: &str| container.docker(["diff"]).contains(place);
    for place in ["/usr/sbin", "/usr/local/sbin", "/usr/lib/x86_64-linux-gnu", "/usr"] {
        copy(file.to_str().unwrap(), &format!("{}:{place}/", container.name));
        assert_eq!(container.sh(&format!("cat {place}/given")).ok(), "given");
        container.sh(&format!("echo own >{place}/own")).ok();
        assert_eq!(read_by_cp(&container, &format!("{place}/own")).unwrap(), "own\n");
    }
    assert!(!changed("/usr/bin") && changed("/usr/sbin/own"), "only what was changed is told");
}

#[test]
fn diff_shows_what_it_shows_with_runc() {
    let _world = shared();
    let script = "echo 1 >/etc/new; rm /etc/group; echo 2 >>/etc/passwd; mkdir /srv; sleep 1000";
    let changes = |runtime: &str| {
        let container = Container::new(BUSYBOX).runtime(runtime).start(["sh", "-c", script]);
        sysbox_tests::wait_until("the script is done", std::time::Duration::from_secs(10), || {
            let output = container.sh("ls -d /srv");
            if output.success() { Ok(()) } else { Err(output.to_string()) }
        });
        container.diff().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (ours, plain) = (changes("sysbox"), changes("runc"));
    assert!(plain.iter().any(|line| line.ends_with("etc/new")), "{plain:?}");
    assert!(plain.iter().any(|line| line.ends_with("group")), "what was deleted: {plain:?}");
    assert_eq!(ours, plain);
}

#[test]
fn a_committed_image_runs_with_plain_runc() {
    let _world = shared();
    let test = "rootfs::a_committed_image_runs_with_plain_runc";
    if !Engine::current().has(test, &[Feature::Commit]) {
        return;
    }
    let container = Container::sleeping::<&str>([]);
    container
        .sh("echo mine >/home/file && chown 1000:1001 /home/file && chmod 4751 /home/file")
        .ok();
    container.sh("echo root >/root/file && chmod 600 /root/file").ok();
    let image = format!("committed-{}:latest", container.name);
    Engine::current().cmd(["commit", &container.name, &image]).ok();
    let show = "stat -c '%n %u:%g %a' /home/file /root/file && cat /home/file /root/file";
    let (plain, ours) =
        (Container::new(&image).runtime("runc").sh(show), Container::new(&image).sh(show));
    Engine::current().cmd(["image", "rm", &image]).ok();
    let wanted = "/home/file 1000:1001 4751\n/root/file 0:0 600\nmine\nroot";
    assert_eq!(plain.ok(), wanted);
    assert_eq!(ours.ok(), wanted);
}

fn copy(from: &str, to: &str) {
    Engine::current().cmd(["cp", from, to]).ok();
}

/// What `docker cp` reads from a file of the container.
fn read_by_cp(container: &Running, path: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("copy");
    let from = format!("{}:{path}", container.name);
    let output = Engine::current().cmd(["cp", &from, target.to_str().unwrap()]).run();
    if !output.success() {
        return Err(output.stderr);
    }
    Ok(fs::read_to_string(target).unwrap())
}
