# shellcheck shell=bash
# A world: a private Docker engine with our runtime and daemons, apart from the machine's own.
#
# It is a directory, a mount namespace (so that its mounts, and the cgroup view that it chose, stay its
# own), a network namespace (so that bridges and iptables rules stay its own) and a cgroup that holds
# all of its processes. A `holder` process keeps the namespaces; ending the world kills what is in the
# cgroup and nothing else.
#
#   DIR/view          hybrid | v2: what /sys/fs/cgroup is for everything in the world
#   DIR/bin           directory of the sysbox binaries
#   DIR/{run,state}   SYSBOX_RUN_DIR and the manager's --data-root
#   DIR/engine        the engine's data; DIR/docker.sock its socket
#   DIR/podman        all of Podman's files; DIR/cni: networks of ctr (engines.sh)
#   DIR/log, DIR/pid  a file a daemon
#   DIR/run/crash     at which point a debug build is to die, see ipc/src/crash.rs

. "$(dirname "${BASH_SOURCE[0]}")/engines.sh"

# The two daemons of the runtime, and the two of the engine, in the order of their start.
WORLD_DAEMONS=(sysbox-fs sysbox-mgr containerd dockerd)

# Where the cgroup v2 hierarchy is mounted on this machine.
unified_mount() { awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts; }

# Which views this machine can give: its own, and v2 everywhere.
machine_view() {
    if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then say v2; else say hybrid; fi
}

world_name() { say "sysbox-world-$(say "$1" | sha256sum | cut -c 1-8)"; }
world_cgroup() { say "$(unified_mount)/$(world_name "$1")"; }
# The same as the world itself sees it.
world_cgroup_inside() {
    if [ "$(cat "$1/view")" = v2 ]; then say "/sys/fs/cgroup/$(world_name "$1")"; else world_cgroup "$1"; fi
}
holder_pid() { cat "$1/pid/holder" 2>/dev/null || true; }

world_is_up() {
    local pid
    pid=$(holder_pid "$1")
    [ -n "$pid" ] && ! process_gone "$pid"
}

world_is_gone() { ! world_is_up "$1"; }

# world_up VIEW DIR BIN: makes the world and starts its daemons; one that is up already stays.
world_up() {
    local view=$1 dir=$2 bin=$3
    world_is_up "$dir" || { world_make "$view" "$dir" "$bin" && world_hold "$dir"; } || return 1
    world_start "$dir"
}

# need_programs BIN: ends the script unless the programs are there.
need_programs() {
    local program
    for program in sysbox-runc sysbox-mgr sysbox-fs; do
        [ -x "$1/$program" ] || die "there is no program $1/$program" "build it with scripts/build, or cargo build"
    done
}

world_make() {
    local view=$1 dir=$2 bin=$3 program
    [ "$view" = v2 ] || [ "$view" = "$(machine_view)" ] ||
        die "this machine can't give the cgroup view '$view'" "use 'v2' or '$(machine_view)'"
    [ "${#dir}" -le 60 ] || die "the path $dir is too long for the sockets in it" "use a path of at most 60 characters"
    need_programs "$bin"
    mkdir -p "$dir"/{bin,run,state,engine,log,pid,cli}
    chmod 711 "$dir"
    say "$view" >"$dir/view"
    # Podman, too, looks there for passwords of registries, and wants the file.
    say '{}' >"$dir/cli/config.json"
    # Copies: the manager adds an entry for its ranges, and leaves alone what others have.
    copy_with_podmans /etc/subuid >"$dir/subuid"
    copy_with_podmans /etc/subgid >"$dir/subgid"
    touch /etc/subuid /etc/subgid
    # Newer libraries find no ids for a name that is no user's.
    { cat /etc/passwd; grep -q '^containers:' /etc/passwd || say containers:x:65533:65533::/nonexistent:/usr/sbin/nologin; } >"$dir/passwd"
    for program in sysbox-runc sysbox-mgr sysbox-fs; do
        ln -sfn "$(realpath "$bin")/$program" "$dir/bin/$program"
    done
    write_engine_config "$dir"
    write_podman_config "$dir"
    write_network_config "$dir"
}

# copy_with_podmans FILE: with ids for Podman's `--userns=auto`.
copy_with_podmans() {
    grep -v '^containers:' "$1" 2>/dev/null || true
    say containers:2147483648:1048576
}

# Whether the engine has this option: it refuses to start with one that it does not know.
engine_knows() { [[ $(dockerd --help) == *"--$1 "* ]]; }

# Where the engine keeps images and layers: with `SYSBOX_WORLD_STORE=containerd` in containerd, as a new
# Docker 29 does by itself and one from 23 on when it is told.
engine_store() {
    case ${SYSBOX_WORLD_STORE:-docker} in
        docker) say '  "storage-driver": "overlay2",' ;;
        containerd)
            [ "$(dockerd --version | grep -oE '[0-9]+' | head -n 1)" -ge 23 ] ||
                die "this machine's Docker cannot keep images in containerd" 'one from 23 on can'
            say '  "features": { "containerd-snapshotter": true },'
            ;;
        *) die "there is no image store '$SYSBOX_WORLD_STORE'" 'known are: docker, containerd' ;;
    esac
}

# The engine's configuration, complete: nothing of it comes from the machine's own engine.
write_engine_config() {
    local dir=$1 store
    store=$(engine_store) || exit 1
    cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/engine/containerd"
state = "$dir/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$dir/run/containerd.sock"
TOML
    # The cgroup driver works in every view and with every init system; native images need no registry.
    cat >"$dir/daemon.json" <<JSON
{
  "data-root": "$dir/engine/docker",
  "exec-root": "$dir/run/docker",
  "pidfile": "$dir/run/dockerd.pid",
  "hosts": ["unix://$dir/docker.sock"],
  "containerd": "$dir/run/containerd.sock",
$store
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "cgroup-parent": "/$(world_name "$dir")/containers",
$(engine_knows oom-score-adjust && say '  "oom-score-adjust": 0,')
  "runtimes": {
    "sysbox": { "path": "$dir/bin/sysbox-runc" },
    "sysbox-runc": { "path": "$dir/bin/sysbox-runc" }
  }
}
JSON
}

# Starts the process that keeps the world's namespaces and waits until they are set up.
world_hold() {
    local dir=$1 cgroup
    cgroup=$(world_cgroup "$dir")
    mkdir -p "$cgroup/engine"
    rm -f "$dir/pid/holder"
    TOP=$TOP setsid bash -c '
        echo $$ >"$1/cgroup.procs"
        exec unshare --mount --net --propagation private "$TOP/scripts/lib/world-holder" "$2"
    ' - "$cgroup/engine" "$dir" >"$dir/log/holder" 2>&1 </dev/null &
    wait_until 10 test -s "$dir/pid/holder" || {
        cat "$dir/log/holder" >&2
        die "the namespaces of the world $dir could not be set up" "see the lines above"
    }
}

# world_enter DIR COMMAND...: runs the command in the world, with the variables that its tools want.
world_enter() {
    local dir=$1 engines
    shift
    world_is_up "$dir" || die "the world $dir is not up" "start it with: scripts/world up hybrid $dir"
    mapfile -t engines < <(engine_environment "$dir")
    SYSBOX_WORLD=$dir SYSBOX_WORLD_VIEW=$(cat "$dir/view") SYSBOX_WORLD_SCRIPT=$TOP/scripts/world \
        SYSBOX_RUN_DIR=$dir/run SYSBOX_CRASH_FILE=$dir/run/crash DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/cli \
        nsenter --target "$(holder_pid "$dir")" --mount --net --wd="$PWD" -- env "${engines[@]}" "$@"
}

# world_start DIR [DAEMON...]: starts those of the daemons that don't run, and waits until they answer.
world_start() {
    local dir=$1 daemon
    shift
    [ $# -gt 0 ] || set -- "${WORLD_DAEMONS[@]}"
    for daemon in "$@"; do
        daemon_runs "$dir" "$daemon" || start_daemon "$dir" "$daemon" || return 1
    done
}

daemon_runs() {
    local pid
    pid=$(cat "$1/pid/$2" 2>/dev/null) && [ -n "$pid" ] && ! process_gone "$pid"
}

start_daemon() {
    local dir=$1 daemon=$2 command ready
    case $daemon in
        sysbox-fs) command=("$dir/bin/sysbox-fs") ready=(test -S "$dir/run/sysfs.sock") ;;
        sysbox-mgr) command=("$dir/bin/sysbox-mgr" --data-root "$dir/state" --subuid-file "$dir/subuid" --subgid-file "$dir/subgid") ready=(test -S "$dir/run/sysmgr.sock") ;;
        containerd) command=(containerd --config "$dir/containerd.toml") ready=(ctr version) ;;
        dockerd) command=(dockerd --config-file "$dir/daemon.json") ready=(docker version) ;;
        *) die "there is no daemon '$daemon' in a world" "known are: ${WORLD_DAEMONS[*]}" ;;
    esac
    # What a killed daemon left would look like a running one.
    rm -f "$dir/pid/$daemon"
    case $daemon in
        containerd) rm -f "$dir/run/containerd.sock" ;;
        dockerd) rm -f "$dir/docker.sock" "$dir/run/dockerd.pid" ;;
    esac
    # Joins the world's cgroup wherever this script itself was started from.
    world_enter "$dir" setsid bash -c '
        echo $$ >"$1/cgroup.procs"; echo $$ >"$2"; shift 2; exec "$@"
    ' - "$(world_cgroup_inside "$dir")/engine" "$dir/pid/$daemon" "${command[@]}" \
        >>"$dir/log/$daemon" 2>&1 </dev/null &
    wait_until 5 test -s "$dir/pid/$daemon" || true
    wait_until 30 daemon_answers "$dir" "$daemon" "${ready[@]}" || true
    if ! daemon_runs "$dir" "$daemon" || ! world_enter "$dir" "${ready[@]}" >/dev/null 2>&1; then
        tail -n 15 "$dir/log/$daemon" >&2
        die "$daemon did not start" "its log is $dir/log/$daemon"
    fi
}

# Ends the wait early when the daemon is dead.
daemon_answers() {
    local dir=$1 daemon=$2
    shift 2
    ! daemon_runs "$dir" "$daemon" || world_enter "$dir" "$@"
}

# world_stop DIR DAEMON...: ends these daemons, as an upgrade would.
world_stop() {
    local dir=$1 daemon pid
    shift
    for daemon in "$@"; do
        pid=$(cat "$dir/pid/$daemon" 2>/dev/null) || continue
        stop_pid "$pid" 20
        rm -f "$dir/pid/$daemon"
    done
}

# world_leftovers DIR: prints what containers left behind; nothing, once all have been removed. A mount
# of an '-init' layer is the engine's own: one that is killed while it makes a container forgets it. So is the
# cgroup that Podman makes once for all of its conmons.
world_leftovers() {
    local dir=$1 name hierarchy
    name=$(world_name "$dir")
    world_enter "$dir" docker ps --all --format 'container {{.Names}}'
    other_leftovers "$dir"
    world_enter "$dir" findmnt --noheadings --list --output TARGET |
        sed -n "s#^\($dir/\(engine/docker/overlay2\|podman/storage/overlay\|run/containerd\|state\)/.*\)#mount \1#p" | grep -v -- '-init/merged$' || true
    for hierarchy in $(world_enter "$dir" awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
        world_enter "$dir" find "$hierarchy/$name/containers" -mindepth 1 -type d ! -path "*/containers/conmon" -printf 'cgroup %p\n' 2>/dev/null || true
    done
    xargs --no-run-if-empty ps -o 'comm=' -p <"$(world_cgroup "$dir")/engine/cgroup.procs" |
        sed -n 's/^\(containerd-shim\|conmon\|sysbox-runc\)/process \1/p'
}

# world_down DIR: ends everything in the world and removes all but its logs.
world_down() {
    local dir=$1
    if world_is_up "$dir"; then
        if daemon_runs "$dir" dockerd; then
            world_enter "$dir" sh -c 'docker ps --all --quiet | xargs --no-run-if-empty docker rm --force' >/dev/null 2>&1 || true
        fi
        stop_other_engines "$dir"
        world_stop "$dir" dockerd containerd sysbox-mgr sysbox-fs
    fi
    # Holders of descriptors outlive their daemons, and those that a test in a v2 world has started
    # again are not in the world's cgroup.
    pkill -f -- "--run-dir $dir/run hold" || true
    remove_world_cgroups "$dir"
    wait_until 5 world_is_gone "$dir" || true
    rm -rf "${dir:?}"/{bin,run,state,engine,podman,cni,pid,cli,view,subuid,subgid,passwd,daemon.json,containerd.toml,docker.sock}
    rmdir "$dir" 2>/dev/null || true
}

# Kills what is left in the world's cgroup and removes it, in every hierarchy.
remove_world_cgroups() {
    local name cgroup hierarchy
    name=$(world_name "$1")
    cgroup=$(world_cgroup "$1")
    [ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill"
    [ ! -d "$cgroup" ] || wait_until 10 grep -q '^populated 0' "$cgroup/cgroup.events" || true
    for hierarchy in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
        [ ! -d "$hierarchy/$name" ] || find "$hierarchy/$name" -depth -type d -exec rmdir {} \; || true
    done
    # Podman makes plain directories for controllers that are in no hierarchy.
    find /sys/fs/cgroup -mindepth 2 -maxdepth 2 -name "$name" -fstype tmpfs -exec rm -rf {} +
    find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d -fstype tmpfs -empty -delete
}
