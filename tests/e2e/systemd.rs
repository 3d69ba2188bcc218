//! systemd as PID 1 of an unmodified Debian, and the engine's commands on such a container.

use std::time::{Duration, Instant};

use sysbox_tests::{BOOKWORM, Container, Engine, Running, TRIXIE, patient, shared, wait_until};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn bookworm_boots_without_failed_units() {
    boots_without_failed_units(BOOKWORM, "systemd 252 ");
}

#[test]
fn trixie_boots_without_failed_units() {
    boots_without_failed_units(TRIXIE, "systemd 257 ");
}

fn boots_without_failed_units(image: &str, version: &str) {
    let _world = shared();
    let system = Container::booted::<&str>(image, []);
    assert_eq!(system.sh("systemctl --failed --no-legend").ok(), "");
    assert_eq!(system.sh("cat /proc/1/comm").ok(), "systemd");
    assert!(system.sh("systemctl --version").ok().starts_with(version));
    assert_eq!(system.sh("stat -f -c %T /sys/fs/cgroup").ok(), "cgroup2fs");
    // PID 1 is in a leaf, so that controllers can be switched on beside it.
    assert_eq!(system.sh("grep ^0: /proc/1/cgroup").ok(), "0::/init.scope");
}

#[test]
fn bookworm_services_timers_and_journal_work() {
    services_timers_and_journal_work(BOOKWORM);
}

#[test]
fn trixie_services_timers_and_journal_work() {
    services_timers_and_journal_work(TRIXIE);
}

fn services_timers_and_journal_work(image: &str) {
    let _world = shared();
    let system = Container::booted::<&str>(image, []);

    system.sh("logger -t probe written-by-a-test").ok();
    wait_for_output(&system, "journalctl --no-pager -t probe", "written-by-a-test");

    let main_pid = |unit: &str| system.sh(&format!("systemctl show -P MainPID {unit}")).ok();
    let before = main_pid("systemd-journald");
    system.sh("systemctl restart systemd-journald").ok();
    assert_ne!(main_pid("systemd-journald"), before);

    let unit = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n";
    system.sh(&format!("printf '{unit}' >/etc/systemd/system/probe.service")).ok();
    system.sh("systemctl daemon-reload && systemctl enable --now probe").ok();
    let before = main_pid("probe");
    system.sh("systemctl restart probe").ok();
    assert_ne!(main_pid("probe"), before);
    assert_eq!(system.sh("systemctl is-active probe").ok(), "active");
    let pid = main_pid("probe");
    let cgroup = system.sh(&format!("grep ^0: /proc/{pid}/cgroup")).ok();
    assert_eq!(cgroup, "0::/system.slice/probe.service");

    system
        .sh("systemd-run --on-active=100ms --timer-property=AccuracySec=10ms touch /run/ticked")
        .ok();
    wait_until("the timer ticked", SOON, || match system.sh("ls /run/ticked") {
        output if output.success() => Ok(()),
        output => Err(output.to_string()),
    });
}

#[test]
fn logind_starts_user_managers() {
    let _world = shared();
    let system = Container::booted::<&str>(TRIXIE, []);
    assert_eq!(system.sh("systemctl is-active systemd-logind").ok(), "active");
    system.sh("useradd --create-home someone && loginctl enable-linger someone").ok();
    wait_for_output(&system, "loginctl list-users --no-legend", "someone");
    wait_for_output(&system, "systemctl is-active user@$(id -u someone)", "active");
}

#[test]
fn stop_is_clean_and_restart_keeps_data() {
    let _world = shared();
    let system = Container::booted::<&str>(BOOKWORM, []);
    system.sh("echo kept >/root/data && docker load --input /opt/busybox.tar").ok();

    let start = Instant::now();
    let code = system.stop(Duration::from_secs(30));
    assert!(
        start.elapsed() < patient(Duration::from_secs(20)),
        "stopping took {:?}",
        start.elapsed()
    );
    // systemd ended by itself: the engine did not have to kill it (137).
    assert_ne!(code, "137");

    system.start();
    system.wait_booted();
    assert_eq!(system.sh("cat /root/data").ok(), "kept");

    system.restart(Duration::from_secs(30));
    system.wait_booted();
    assert_eq!(system.sh("cat /root/data").ok(), "kept");
    let images = system.sh("docker image ls --format '{{.Repository}}'").ok();
    assert!(images.contains("sysbox-busybox"), "the inner engine lost its images: {images}");
}

#[test]
fn kill_rm_and_logs_work() {
    let _world = shared();
    let system = Container::booted(TRIXIE, ["--tty"]);
    // The shim writes no log of a terminal, which is what ctr would show.
    if Engine::current() != Engine::Ctr {
        let logs = system.logs();
        let words = "Debian GNU/Linux 13";
        assert!(logs.contains(words), "systemd's own words should be in the log: {logs}");
    }

    assert_eq!(system.kill(), "137");
    system.start();
    system.wait_booted();
    system.remove();
}

fn wait_for_output(system: &Running, script: &str, wanted: &str) {
    wait_until(&format!("`{script}` shows '{wanted}'"), SOON, || match system.sh(script) {
        output if output.stdout.contains(wanted) => Ok(()),
        output => Err(output.to_string()),
    });
}
