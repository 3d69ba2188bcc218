//! Pods as Kubernetes makes them: the calls of a kubelet to containerd's CRI plugin. There is no Kubernetes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sysbox_tests::cri::{self, Cri, Pod};
use sysbox_tests::{BOOKWORM, BUSYBOX, World, cannot_run, patient, shared, wait_until};

#[test]
fn a_pod_of_the_cri_plugin() {
    let _world = shared();
    // containerd asks for CPU shares.
    if !World::current().has_controllers("pods::a_pod_of_the_cri_plugin", &["cpu", "memory"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("images.tar");
    cri::save_images(&archive, BUSYBOX, &[BUSYBOX, BOOKWORM]);
    let cri = Cri::new(&archive);
    let pod = cri.pod("one");

    // Two small containers of one pod, and a whole system in the same.
    let sleep = |config: &mut cri::api::ContainerConfig| {
        config.command = ["sleep", "1000"].map(str::to_owned).to_vec();
    };
    let (first, second) = (pod.start("first", BUSYBOX, sleep), pod.start("second", BUSYBOX, sleep));
    let namespaces =
        "for n in user net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; hostname";
    let lines = |container: &str| {
        let text = pod.ok(container, namespaces);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = (lines(&first), lines(&second));
    assert_eq!((&one[..4], &one[6]), (&other[..4], &other[6]), "user, net, ipc, uts");
    assert!(one[4] != other[4] && one[5] != other[5], "pid, mnt: {one:?} {other:?}");
    assert_eq!(one[6], "one");
    let map = pod.ok(&first, "cat /proc/self/uid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert!(map[0] == "0" && map[1] != "0" && map[2] == "65536", "{map:?}");

    // One network, in which root of each has rights.
    let address = pod.address();
    assert!(pod.ok(&second, "ip -o -4 address show eth0").contains(&address));
    pod.ok(&first, "ip address add 10.9.9.9/32 dev lo");
    assert!(pod.ok(&second, "ip address show dev lo").contains("10.9.9.9"));
    assert_eq!(pod.sh(&first, "exit 42").0, 42);

    let system = pod.start("system", BOOKWORM, |config| {
        let resources = cri::api::LinuxContainerResources {
            memory_limit_in_bytes: 1 << 30,
            ..Default::default()
        };
        config.linux.as_mut().unwrap().resources = Some(resources);
    });
    wait_for_systemd(&pod, &system);
    assert_eq!(pod.ok(&system, "systemctl --failed --no-legend"), "");
    let memory = |wanted: &str| {
        let shown = pod.ok(&system, "head -n 1 /proc/meminfo");
        assert!(shown.ends_with(wanted), "{shown}");
    };
    memory(" 1048576 kB");
    pod.limit_memory(&system, 512 << 20);
    memory(" 524288 kB");

    // Docker in the pod, which the host reaches by the pod's address.
    pod.ok(&system, "docker load --input /opt/busybox.tar");
    let serve = format!(
        "docker run --detach --publish 8080:80 {BUSYBOX} \
         sh -c 'echo served from the pod >/index.html; exec httpd -f -p 80 -h /'"
    );
    pod.ok(&system, &serve);
    wait_until("the inner web server answers", Duration::from_secs(20), || {
        let page =
            get(&format!("{address}:8080")).map_err(|error| format!("{address}: {error}"))?;
        if page.ends_with("served from the pod\n") { Ok(()) } else { Err(page) }
    });
    pod.remove(&system);

    let refused = pod.try_start("privileged", BUSYBOX, |config| {
        sleep(config);
        let linux = config.linux.as_mut().unwrap();
        linux.security_context.as_mut().unwrap().privileged = true;
    });
    assert!(refused.unwrap_err().contains("privileged"), "of a pod that is not");
}

/// `hostUsers: false`: the kubelet gives the ids, and containerd 2 mounts layers with those.
#[test]
fn a_pod_with_ids_of_the_kubelet() {
    let _world = shared();
    let version = cri::version();
    if version < (1, 7) {
        let reason = format!("containerd {}.{} takes no ids for a pod", version.0, version.1);
        return cannot_run("pods::a_pod_with_ids_of_the_kubelet", &reason);
    }
    if !World::current().has_controllers("pods::a_pod_with_ids_of_the_kubelet", &["cpu", "memory"])
    {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("images.tar");
    cri::save_images(&archive, BUSYBOX, &[BUSYBOX, BOOKWORM]);
    let cri = Cri::new(&archive);
    let pod = cri.pod_with_ids("two", Some(0x4000_0000));
    let first = pod.start("first", BUSYBOX, |config| {
        config.command = ["sleep", "1000"].map(str::to_owned).to_vec();
    });
    let map = pod.ok(&first, "cat /proc/self/uid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "1073741824", "65536"]);
    assert_eq!(pod.ok(&first, "stat -c %u:%g /bin/busybox && touch /f && stat -c %u /f"), "0:0\n0");
    let system = pod.start("system", BOOKWORM, |_| ());
    wait_for_systemd(&pod, &system);
    pod.ok(&system, "docker load --input /opt/busybox.tar");
    let script = format!("docker run --rm {BUSYBOX} sh -c 'grep -c MemTotal /proc/meminfo'");
    assert_eq!(pod.ok(&system, &script), "1");
}

fn wait_for_systemd(pod: &Pod<'_>, system: &str) {
    wait_until("systemd says 'running'", Duration::from_secs(90), || {
        match pod.sh(system, "systemctl is-system-running") {
            (0, _) => Ok(()),
            (_, state) => Err(state),
        }
    });
}

fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patient(Duration::from_secs(5))))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
