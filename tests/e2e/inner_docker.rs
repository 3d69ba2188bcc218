//! An unmodified Docker engine inside the container, with real images, networks and volumes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sysbox_tests::{BOOKWORM, BUSYBOX, Container, Running, TRIXIE, patient, shared, wait_until};

/// A booted system whose inner engine has the busybox image.
fn system_with_engine(image: &str, args: &[&str]) -> Running {
    let system = Container::booted(image, args);
    system.sh("docker load --input /opt/busybox.tar").ok();
    system
}

#[test]
fn bookworm_runs_containers_on_overlay2() {
    runs_containers_on_overlay2(BOOKWORM);
}

#[test]
fn trixie_runs_containers_on_overlay2() {
    runs_containers_on_overlay2(TRIXIE);
}

fn runs_containers_on_overlay2(image: &str) {
    let _world = shared();
    let system = system_with_engine(image, &[]);
    assert_eq!(system.sh("docker info --format '{{.Driver}}' 2>/dev/null").ok(), "overlay2");

    // The store is in the container's own layer, and not on the overlay over it.
    assert_ne!(system.sh("stat -f -c %T /var/lib/docker").ok(), "overlayfs");
    let upper = system.upper_dir();
    assert!(upper.join("var/lib/docker/image/overlay2").is_dir(), "{}", upper.display());

    let hello = system.sh(&format!("docker run --rm {BUSYBOX} echo hello from inside"));
    assert_eq!(hello.ok(), "hello from inside");
    let script = format!(
        "docker run --detach --name web {BUSYBOX} sleep 1000 && docker exec web id -u \
         && docker stop --time 0 web && docker logs web && docker rm web"
    );
    assert!(system.sh(&script).ok().contains("web"));
}

/// As a new Docker 29 has them by itself: containerd's layers, in another store.
#[test]
fn images_may_be_kept_in_containerd() {
    let _world = shared();
    let system = Container::booted::<&str>(TRIXIE, []);
    let configured =
        "echo '{ \"features\": { \"containerd-snapshotter\": true } }' >/etc/docker/daemon.json";
    system.sh(&format!("{configured} && systemctl restart docker")).ok();
    let driver = "docker info --format '{{.Driver}} {{.DriverStatus}}' 2>/dev/null";
    assert_eq!(system.sh(driver).ok(), "overlayfs [[driver-type io.containerd.snapshotter.v1]]");
    system.sh("docker load --input /opt/busybox.tar").ok();
    // A layer that removes a file and replaces a directory of the one below.
    let dockerfile = format!(
        "FROM {BUSYBOX}\\nRUN mkdir /d && echo 1 >/d/old && echo 2 >/gone\\n\
         RUN rm -r /d /gone && mkdir /d && echo new >/d/new"
    );
    let script = format!(
        "mkdir /build && cd /build && printf '{dockerfile}' >Dockerfile \
         && DOCKER_BUILDKIT=0 docker build --tag built . >/build/log 2>&1 || cat /build/log \
         && docker run --rm built sh -c 'ls /d && ls -d /gone /d'"
    );
    let shown = system.sh(&script);
    assert_eq!(shown.stdout.trim_end(), "new\n/d", "{shown}");
    assert!(shown.stderr.contains("/gone: No such file"), "{shown}");
    let upper =
        system.upper_dir().join("var/lib/containerd/io.containerd.snapshotter.v1.overlayfs");
    assert!(upper.is_dir(), "{}", upper.display());
}

#[test]
fn bookworm_builds_images() {
    builds_images(BOOKWORM);
}

#[test]
fn trixie_builds_images() {
    builds_images(TRIXIE);
}

fn builds_images(image: &str) {
    let _world = shared();
    let system = system_with_engine(image, &[]);
    let dockerfile = format!(
        "FROM {BUSYBOX}\\nCOPY made /made\\nRUN id -u >/uid && chown 1000 /made && mkdir /sub\\n\
         USER user\\nCMD cat /uid /made"
    );
    let script = format!(
        "mkdir /build && cd /build && echo content >made && printf '{dockerfile}' >Dockerfile \
         && DOCKER_BUILDKIT=0 docker build --tag built . >/build/log 2>&1 || cat /build/log \
         && docker run --rm built && docker run --rm built stat -c %u /made"
    );
    assert_eq!(system.sh(&script).ok(), "0\ncontent\n1000");
}

#[test]
fn a_published_port_reaches_an_inner_container() {
    let _world = shared();
    let system = system_with_engine(BOOKWORM, &["--publish", "127.0.0.1::8080"]);
    system
        .sh(&format!(
            "docker run --detach --publish 8080:80 {BUSYBOX} \
             sh -c 'echo served from within >/index.html; exec httpd -f -p 80 -h /'"
        ))
        .ok();
    let address = system.address(8080);
    wait_until("the inner web server answers", Duration::from_secs(20), || {
        let page = get(&address).map_err(|error| format!("{address}: {error}"))?;
        if page.ends_with("served from within\n") { Ok(()) } else { Err(page) }
    });
}

#[test]
fn inner_privileged_and_host_network_work() {
    let _world = shared();
    let system = system_with_engine(TRIXIE, &[]);
    let script = "mount -t tmpfs none /tmp && mkdir /tmp/p && mount -t proc proc /tmp/p \
                  && cat /tmp/p/1/comm && umount /tmp/p && umount /tmp";
    let privileged = format!("docker run --rm --privileged {BUSYBOX} sh -c '{script}'");
    assert_eq!(system.sh(&privileged).ok(), "sh");

    let host = format!("docker run --rm --net=host {BUSYBOX} ip -o address show eth0");
    let outer = system.sh("ip -o -4 address show eth0 | awk '{ print $4 }'").ok();
    assert!(system.sh(&host).ok().contains(&outer), "the system's own address is {outer}");
}

#[test]
fn inner_volumes_keep_their_files() {
    let _world = shared();
    let system = system_with_engine(BOOKWORM, &[]);
    let with = |options: &str, script: &str| {
        system.sh(&format!("docker run --rm {options} {BUSYBOX} sh -c '{script}'")).ok()
    };
    with("--volume kept:/v", "echo kept >/v/file && chown 1000 /v/file");
    assert_eq!(with("--volume kept:/v", "stat -c %u /v/file; cat /v/file"), "1000\nkept");

    system.sh("mkdir /srv/bound && echo outer >/srv/bound/file").ok();
    assert_eq!(with("--volume /srv/bound:/v", "cat /v/file; echo inner >/v/file"), "outer");
    assert_eq!(system.sh("cat /srv/bound/file").ok(), "inner");
    let output = system.sh(&format!(
        "docker run --rm --volume /srv/bound:/v:ro {BUSYBOX} sh -c 'echo no >/v/file'"
    ));
    assert!(output.fails().contains("Read-only file system"));
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patient(Duration::from_secs(5))))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
