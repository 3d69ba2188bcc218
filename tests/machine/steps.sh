# shellcheck shell=bash
# shellcheck source=tests/machine/lib.sh
. ./lib.sh
# shellcheck source=tests/machine/variants.sh
. ./variants.sh
# shellcheck source=tests/machine/kubernetes.sh
. ./kubernetes.sh

# The steps, in the order in which they make sense. Each runs in a bash with `set -e`.

# README's commands, word for word but for the name of the image, as typed at a terminal.
follow_readme() {
    sed -i "s# IMAGE\$# $SMALL cat /proc/self/uid_map#" readme-commands
    script --quiet --return --command 'bash -euxo pipefail ./readme-commands' results/readme </dev/null
    # With any other runtime root inside would be root outside.
    grep -aE '^ *0 +[1-9][0-9]* +65536' results/readme
}

# The package finds a Docker with a configuration of its own, and does not disturb it.
step_install() {
    local engine
    engine=$(main_pid docker.service)
    echo '{ "log-level": "warn" }' >/etc/docker/daemon.json
    follow_readme
    systemctl is-active sysbox-fs sysbox-mgr
    systemctl is-enabled sysbox-fs sysbox-mgr
    jq --exit-status '."log-level" == "warn" and .runtimes.sysbox.path == "/usr/bin/sysbox-runc"' /etc/docker/daemon.json
    eventually 30 sh -c 'docker info --format "{{json .Runtimes}}" | grep -q "\"sysbox\""'
    equal 'the engine, which was only told to read its configuration' "$engine" "$(main_pid docker.service)"
    grep '^sysbox:' /etc/subuid
    grep '^sysbox:' /etc/subgid
    equal 'fs.inotify.max_user_instances' 8192 "$(cat /proc/sys/fs/inotify/max_user_instances)"
    # One of the variants has SELinux instead.
    grep -q security=selinux /proc/cmdline || equal 'AppArmor' Y "$(cat /sys/module/apparmor/parameters/enabled)"
}

# What Docker's configuration may say when the package comes and goes: all else in it stays, and what is
# broken is not touched. On a copy: no engine reads it.
step_registration() {
    local ours='"sysbox":{"path":"/usr/bin/sysbox-runc"}' runc='"sysbox-runc":{"path":"/usr/bin/sysbox-runc"}'
    export DOCKER_CONFIG_FILE=$PWD/results/daemon.json
    registers '' "{\"runtimes\":{$ours,$runc}}" ''
    registers '{"mtu":1400,"runtimes":{"other":{"path":"/o"}},"default-runtime":"other"}' \
        "{\"mtu\":1400,\"runtimes\":{\"other\":{\"path\":\"/o\"},$ours,$runc},\"default-runtime\":\"other\"}" \
        '{"mtu":1400,"runtimes":{"other":{"path":"/o"}},"default-runtime":"other"}'
    # A name that stands for something else.
    registers '{"runtimes":{"sysbox":{"path":"/o"}}}' "{\"runtimes\":{\"sysbox\":{\"path\":\"/o\"},$runc}}" '{"runtimes":{"sysbox":{"path":"/o"}}}'
    # Docker would not start with a default that is gone.
    registers "{\"runtimes\":{$ours,$runc},\"default-runtime\":\"sysbox\"}" "{\"runtimes\":{$ours,$runc},\"default-runtime\":\"sysbox\"}" ''
    registers '{ "mtu": 1400, }' '{ "mtu": 1400, }' '{ "mtu": 1400, }'
    # A link to a file that only root may read.
    install --mode 600 <(echo '{"mtu":1400}') results/linked
    ln --symbolic --force linked "$DOCKER_CONFIG_FILE"
    registers link "{\"mtu\":1400,\"runtimes\":{$ours,$runc}}" '{"mtu":1400}'
    equal 'the link and the mode' 'linked 600' "$(readlink "$DOCKER_CONFIG_FILE") $(stat -c %a results/linked)"
}

# registers BEFORE ADDED REMOVED: texts of the configuration; none if there is no file.
registers() {
    [ "$1" = link ] || rm -f "$DOCKER_CONFIG_FILE"
    case $1 in '' | link) ;; *) echo "$1" >"$DOCKER_CONFIG_FILE" ;; esac
    /usr/libexec/sysbox/docker-runtimes add
    equal 'with the runtimes' "$2" "$(config_text)"
    /usr/libexec/sysbox/docker-runtimes remove
    equal 'without the runtimes' "$3" "$(config_text)"
}

config_text() { [ ! -e "$DOCKER_CONFIG_FILE" ] || jq --compact-output . "$DOCKER_CONFIG_FILE" 2>/dev/null || cat "$DOCKER_CONFIG_FILE"; }

# systemd boots in a container to `running`, and Docker in it runs a container.
step_main_job() {
    docker run --detach --name "$MAIN" --runtime=sysbox --memory 512m --cpus 1 --pids-limit 300 "$SYSTEM"
    docker inspect --format '{{.State.Pid}}' "$MAIN" >results/main-pid
    eventually 600 sh -c "docker exec $MAIN systemctl is-system-running | grep -E 'running|degraded'"
    inside systemctl is-system-running || { inside systemctl --failed --no-pager; inside journalctl --no-pager -b -p warning; fail 'systemd is not content'; }
    inside docker load --input /opt/busybox.tar
    equal 'an inner container' hello "$(inner_hello)"
    inside cat /proc/self/uid_map | grep -v '^ *0 *0 '
    # The kernel's modules and configuration are the host's, and the former still not what systemd makes device nodes by.
    inside test -d "/lib/modules/$(uname -r)/kernel"
    inside grep -q CONFIG_NAMESPACES=y "/boot/config-$(uname -r)"
    equal 'modes of devices' '666 666' "$(inside stat -c %a /dev/fuse /dev/net/tun | xargs)"
    # What inner engines give to what is to be killed last, such as the pods of Kubernetes.
    equal 'the OOM score of an inner container' -998 "$(inside docker run --rm --oom-score-adj -998 sysbox-busybox cat /proc/self/oom_score_adj)"
}

# The administrator's command finds nothing to complain about.
step_sysbox_command() {
    sysbox doctor
    sysbox version
    sysbox ps | grep "$(docker inspect --format '{{.Id}}' "$MAIN" | cut -c 1-12) *running"
    sysbox --json ps | jq --exit-status '.[0].state == "running"'
}

# Limits are set outside, seen inside, and out of reach from inside.
step_limits_are_seen() {
    local cgroup
    cgroup=$(main_cgroup)
    equal 'memory.max' 536870912 "$(cat "$cgroup/memory.max")"
    equal 'cpu.max' '100000 100000' "$(cat "$cgroup/cpu.max")"
    equal 'pids.max' 300 "$(cat "$cgroup/pids.max")"
    equal 'MemTotal' 524288 "$(meminfo_total)"
    equal 'CPUs in /proc/cpuinfo' 1 "$(inside grep -c ^processor /proc/cpuinfo)"
    equal 'the controllers inside' "$(cat "$cgroup/cgroup.controllers")" "$(inside cat /sys/fs/cgroup/cgroup.controllers)"
    for name in cpu memory pids io; do inside grep -qw "$name" /sys/fs/cgroup/cgroup.controllers; done
    fails inside sh -c 'echo max >/sys/fs/cgroup/memory.max'
    equal 'memory.max after that' 536870912 "$(cat "$cgroup/memory.max")"
    # docker stats reads the same cgroup.
    docker stats --no-stream --format '{{.MemUsage}}' "$MAIN" | grep '/ 512MiB'
}

step_limit_of_memory() {
    docker run --detach --name eater --runtime=sysbox --memory 64m --memory-swap 64m "$SMALL" \
        sh -c 'while :; do tail /dev/zero >/dev/null; echo "eaten: $?"; sleep 1; done'
    eventually 60 sh -c 'docker logs eater | grep eaten:'
    # tail was killed, init was not.
    docker logs eater | grep 'eaten: 137'
    equal 'its state' running "$(docker inspect --format '{{.State.Status}}' eater)"
    docker rm --force eater
}

step_limit_of_cpu() {
    local cgroup
    cgroup=$(main_cgroup)
    inside sh -c 'for i in 1 2; do timeout 60 sh -c "while :; do :; done" & done' &
    eventually 60 sh -c "test \$(sed -n 's/^nr_throttled //p' $cgroup/cpu.stat) -gt 3"
    inside pkill -f 'while :' || true
}

step_limit_of_pids() {
    docker run --detach --name forker --runtime=sysbox --pids-limit 20 "$SMALL" \
        sh -c 'i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i + 1)); done; sleep 1000'
    eventually 60 sh -c "docker logs forker 2>&1 | grep -i \"can't fork\" || docker inspect --format '{{.State.Status}}' forker | grep exited"
    docker rm --force forker
}

# CPUs are given and taken at run time, and so is memory; inside sees it at once.
step_limit_of_cpuset_and_updates() {
    docker run --detach --name pinned --runtime=sysbox --cpuset-cpus 1 --memory 64m --memory-swap 64m "$SMALL" sleep 100000
    equal 'its CPUs' 1 "$(allowed_cpus pinned)"
    fails docker exec pinned sh -c 'echo 0-1 >/sys/fs/cgroup/cpuset.cpus'
    docker update --cpuset-cpus 0 --memory 128m --memory-swap 128m pinned
    equal 'its CPUs after an update' 0 "$(allowed_cpus pinned)"
    equal 'its memory after an update' 131072 "$(docker exec pinned awk '/^MemTotal/ { print $2 }' /proc/meminfo)"
    docker rm --force pinned
}

allowed_cpus() { docker exec "$1" awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status; }

# Device rules are eBPF programs of the cgroup here, and systemd writes what it knows again at each reload.
# The node is open to everybody: only the rules can keep a container from it.
step_device_rules() {
    local type='0x%t 0x%T' major minor
    read -r major minor < <(stat -c "$type" /dev/vdc)
    mknod --mode 666 /var/lib/node b $((major)) $((minor))
    docker run --detach --name refused --runtime=sysbox --volume /var/lib/node:/node "$SMALL" sleep 100000
    docker run --detach --name given --runtime=sysbox --volume /var/lib/node:/node --device-cgroup-rule "b $((major)):$((minor)) r" \
        --device /dev/vdb:/dev/task:r "$SMALL" sleep 100000
    device_rules_hold
    systemctl daemon-reload
    device_rules_hold
    docker rm --force refused given
}

device_rules_hold() {
    docker exec given head -c 10 /node >/dev/null
    docker exec given head -c 10 /dev/task >/dev/null
    not_permitted docker exec given sh -c ': >>/node'
    not_permitted docker exec refused head -c 10 /node
    docker exec refused sh -c ': >/dev/null </dev/zero && head -c 1 /dev/urandom >/dev/null'
}

# not_permitted COMMAND...: must fail, and say why.
not_permitted() {
    local output
    if output=$("$@" 2>&1); then fail "this succeeded: $*"; fi
    grep -E 'not permitted|Permission denied' <<<"$output"
}

# A profile of the user's holds inside; the engine's own, which is made for a root that is the host's, is not used.
step_apparmor() {
    apparmor_parser --replace <<'PROFILE'
profile step-apparmor flags=(attach_disconnected) {
  file, capability, network, mount, umount, pivot_root, signal, ptrace, unix,
  deny /denied rw,
}
PROFILE
    equal 'the profile' 'step-apparmor (enforce)' "$(confined cat /proc/self/attr/current)"
    confined touch /granted
    fails confined touch /denied
    equal 'the profile of others' unconfined "$(docker run --rm --runtime=sysbox "$SMALL" cat /proc/self/attr/current)"
}

confined() { docker run --rm --runtime=sysbox --security-opt apparmor=step-apparmor "$SMALL" "$@"; }

# A volume on a file system that the kernel cannot ID-map, and whose server may go: its files belong to nobody
# inside, what their modes say holds, the user is told, and nothing waits for the server at the end.
step_nfs() {
    local output
    mkdir -p /srv/nfs/dir /mnt/nfs
    echo public >/srv/nfs/dir/public
    install --mode 600 /srv/nfs/dir/public /srv/nfs/dir/private
    install --directory --mode 1777 /srv/nfs/dir/drop
    echo '/srv/nfs 127.0.0.1(rw,no_subtree_check,no_root_squash)' >/etc/exports
    # A restarted server lets its clients wait for this time.
    printf '[nfsd]\ngrace-time=10\nlease-time=10\n' >/etc/nfs.conf.d/step.conf
    systemctl start nfs-server
    mount -t nfs -o vers=4.2 127.0.0.1:/srv/nfs /mnt/nfs
    if output=$(on_nfs --rm --env SYSBOX_FSUID_MAP_FAIL_ON_ERROR=TRUE "$SMALL" true 2>&1); then fail 'it was not refused'; fi
    grep 'the source /mnt/nfs/dir (nfs4) cannot be ID-mapped' <<<"$output"
    on_nfs --detach --name nfs "$SMALL" sleep 100000
    sysbox events --no-follow | grep ' warned .*nfs.*/data: the source /mnt/nfs/dir (nfs4) cannot be ID-mapped'
    journalctl --boot --no-pager --unit sysbox-mgr | grep '/data: the source /mnt/nfs/dir (nfs4) cannot be ID-mapped'
    # shellcheck disable=SC2016
    equal 'what everybody may read' 'public 65534' "$(docker exec nfs sh -c 'echo $(cat /data/public) $(stat -c %u /data/public)')"
    not_permitted docker exec nfs cat /data/private
    not_permitted docker exec nfs touch /data/file
    docker exec nfs sh -c 'echo mine >/data/drop/mine'
    equal 'a file of its own' 0 "$(docker exec nfs stat -c %u /data/drop/mine)"
    fails test "$(stat -c %u /srv/nfs/dir/drop/mine)" = 0
    # A process that waits for a server that is gone, and the end of its container.
    systemctl stop nfs-server
    # shellcheck disable=SC2016
    docker exec --detach nfs sh -c 'echo $$ >/asks; exec touch /data/drop/new'
    # shellcheck disable=SC2016
    eventually 60 docker exec nfs sh -c 'grep "^State:.D" /proc/$(cat /asks)/status'
    timeout 120 docker rm --force nfs
    systemctl start nfs-server
    umount /mnt/nfs
    systemctl stop nfs-server
}

on_nfs() { docker run --runtime=sysbox --volume /mnt/nfs/dir:/data "$@"; }

# killed UNIT: kills its process, and waits until systemd has started another that is ready.
killed() {
    local unit=$1 old
    old=$(main_pid "$unit")
    kill -KILL "$old"
    eventually 60 sh -c "systemctl is-active $unit && test \$(systemctl show --property MainPID --value $unit) -ne $old"
}

# is_kept UNIT: what must outlive the daemon is held by systemd, or by a process before systemd 254.
is_kept() {
    if [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -ge 254 ]; then
        fails test "$(systemctl show --property NFileDescriptorStore --value "$1")" = 0
        fails pgrep --full "^$1 .*hold"
    else
        pgrep --full "^$1 .*hold"
    fi
}

# Reads without a pause while the daemon is killed: none may fail.
step_kill_sysbox_fs() {
    is_kept sysbox-fs
    inside sh -c 'rm -f /run/stop /run/bad; while [ ! -e /run/stop ]; do grep -q "^MemTotal: *524288 kB" /proc/meminfo || echo bad >>/run/bad; done; touch /run/done' &
    for _ in 1 2 3 4 5 6; do killed sysbox-fs; done
    equal 'its memory' 524288 "$(meminfo_total)"
    inside touch /run/stop
    eventually 60 inside test -e /run/done
    fails inside test -e /run/bad
    main_is_well
}

# Mounts proc without a pause, which only the manager can do, while that is killed.
step_kill_sysbox_mgr() {
    # shellcheck disable=SC2016
    inside sh -c 'mkdir -p /m; rm -f /run/stop /run/bad /run/done /run/rounds; n=0
        while [ ! -e /run/stop ]; do
            mount -t proc proc /m 2>>/run/bad || echo "mount: $?" >>/run/bad
            grep -q "^MemTotal: *524288 kB" /m/meminfo || grep MemTotal /m/meminfo >>/run/bad 2>&1
            umount /m 2>>/run/bad || echo "umount: $?" >>/run/bad
            n=$((n + 1)); echo $n >/run/rounds
        done; touch /run/done' &
    for _ in 1 2 3 4 5 6; do
        eventually 60 inside test -s /run/rounds
        is_kept sysbox-mgr
        killed sysbox-mgr
        inside rm /run/rounds
    done
    inside touch /run/stop
    eventually 60 inside test -e /run/done
    inside cat /run/bad || true
    fails inside test -s /run/bad
    # systemd shares mounts with their copies: none of what was mounted in there may appear here.
    equal 'mounts of the container here' 0 "$(journalctl --boot --no-pager | grep -c 'run-sysbox-fs-')"
    main_is_well
    docker run --rm --runtime=sysbox "$SMALL" true
}

# The exposure of the units as systemd counts it: 0 is all confinement there is, 100 none.
step_units_are_confined() {
    systemd-analyze security --no-pager sysbox-fs.service sysbox-mgr.service || true
    systemd-analyze security --no-pager --threshold=55 sysbox-fs.service
    systemd-analyze security --no-pager --threshold=75 sysbox-mgr.service
}

# Stopped daemons are missed only by what needs them.
step_stop_and_start() {
    systemctl stop sysbox-mgr sysbox-fs
    equal 'the container' true "$(docker inspect --format '{{.State.Running}}' "$MAIN")"
    docker top "$MAIN" | grep systemd
    systemctl start sysbox-mgr
    systemctl is-active sysbox-fs
    main_is_well
    systemctl restart sysbox-fs sysbox-mgr
    main_is_well
}

# systemd's reload does not make it forget the FUSE device.
step_daemon_reload() {
    systemctl daemon-reload
    systemctl daemon-reexec
    killed sysbox-fs
    main_is_well
}

step_upgrade() {
    local old_fs old_mgr engine
    old_fs=$(main_pid sysbox-fs) old_mgr=$(main_pid sysbox-mgr) engine=$(main_pid docker.service)
    apt-get install --yes ./newer/sysbox_*.deb
    # shellcheck disable=SC2016
    equal 'the version' "$(dpkg-deb --field newer/sysbox_*.deb Version)" "$(dpkg-query --show --showformat '${Version}' sysbox)"
    systemctl is-active sysbox-fs sysbox-mgr
    fails test "$old_fs" = "$(main_pid sysbox-fs)"
    fails test "$old_mgr" = "$(main_pid sysbox-mgr)"
    equal 'the engine' "$engine" "$(main_pid docker.service)"
    main_is_well
    docker run --rm --runtime=sysbox "$SMALL" true
}

# Nothing of the machine's engine needs the daemons, so its restart finds them.
step_restart_of_docker() {
    systemctl restart docker
    docker rm --force "$MAIN"
    docker run --detach --name "$MAIN" --runtime=sysbox --memory 512m --restart=always "$SMALL" sleep 100000
    systemctl restart docker
    eventually 60 sh -c "docker exec $MAIN grep '^MemTotal: *524288 kB' /proc/meminfo"
}

step_removal_is_refused() {
    local output
    if output=$(apt-get remove --yes sysbox 2>&1); then fail 'it was removed'; fi
    say "$output"
    grep -q 'Stop them' <<<"$output"
    grep -q "$(docker ps --no-trunc --quiet --filter name="$MAIN" | cut -c 1-12)" <<<"$output"
    systemctl is-active sysbox-fs sysbox-mgr
    inside true
}

step_remove() {
    docker rm --force "$MAIN"
    apt-get remove --yes sysbox
    fails systemctl is-active sysbox-fs
    fails systemctl is-active sysbox-mgr
    fails pgrep 'sysbox-(fs|mgr)'
    equal 'the configuration of Docker' '{"log-level":"warn"}' "$(jq --compact-output . /etc/docker/daemon.json)"
    fails grep /run/sysbox /proc/mounts
    systemctl restart docker
    docker run --rm "$SMALL" true
}

step_purge() {
    apt-get purge --yes sysbox
    fails ls -d /var/lib/sysbox /run/sysbox /etc/default/sysbox /usr/libexec/sysbox
    fails grep '^sysbox:' /etc/subuid /etc/subgid
    equal 'units that are left' '' "$(find /etc/systemd /usr/lib/systemd /var/lib/systemd/deb-systemd-helper-enabled -name 'sysbox*')"
}
