# shellcheck shell=bash
# The machine's own Docker engine: registering the runtime names with it, and the daemons beside it.

MACHINE_ENGINE=unix:///var/run/docker.sock
MACHINE_CONFIG=/etc/docker/daemon.json
# Daemons without a service manager keep their pid files here.
MACHINE_PIDS=/run/sysbox-quickstart

machine_engine_runs() { [ -S "${MACHINE_ENGINE#unix://}" ] && docker -H "$MACHINE_ENGINE" info >/dev/null 2>&1; }

has_systemd() { [ -d /run/systemd/system ]; }

# start_machine_daemons BIN: in this mount namespace, which is the engine's.
start_machine_daemons() {
    local bin=$1 daemon
    for daemon in sysbox-fs sysbox-mgr; do
        machine_daemon_runs "$daemon" && continue
        if has_systemd; then
            systemctl reset-failed "$daemon" 2>/dev/null || true
            systemd-run --quiet --unit="$daemon" --property=LimitNOFILE=infinity --property=KillMode=process "$bin/$daemon" || return 1
        else
            mkdir -p "$MACHINE_PIDS"
            setsid bash -c 'echo $$ >"$1"; exec "$2"' - "$MACHINE_PIDS/$daemon" "$bin/$daemon" \
                >"/var/log/$daemon.log" 2>&1 </dev/null &
        fi
        wait_until 15 test -S "/run/sysbox/$(daemon_socket "$daemon")" || {
            tail -n 15 "/var/log/$daemon.log" 2>/dev/null || journalctl --no-pager --lines 15 --unit "$daemon"
            return 1
        }
    done
}

daemon_socket() { case $1 in sysbox-fs) say sysfs.sock ;; *) say sysmgr.sock ;; esac; }

machine_daemon_runs() {
    local pid
    if has_systemd && systemctl is-active --quiet "$1"; then return 0; fi
    pid=$(cat "$MACHINE_PIDS/$1" 2>/dev/null) && ! process_gone "$pid"
}

stop_machine_daemons() {
    local daemon
    for daemon in sysbox-mgr sysbox-fs; do
        if has_systemd && systemctl is-active --quiet "$daemon"; then
            systemctl stop "$daemon"
        elif machine_daemon_runs "$daemon"; then
            stop_pid "$(cat "$MACHINE_PIDS/$daemon")" 20
        fi
    done
    rm -rf "$MACHINE_PIDS"
}

# register_runtimes PATH: adds both names to the engine's configuration, keeps all else in it, and has
# the engine read it again: containers go on running.
register_runtimes() {
    local program=$1
    edit_machine_config '.runtimes.sysbox.path = $program | .runtimes."sysbox-runc".path = $program' "$program" || return 1
    wait_until 10 engine_has_runtime sysbox || {
        say "Docker does not list the runtime 'sysbox' after reading $MACHINE_CONFIG again"
        return 1
    }
}

# unregister_runtimes PATH: removes the names, if it is ours that they stand for.
unregister_runtimes() {
    [ -e "$MACHINE_CONFIG" ] || return 0
    # shellcheck disable=SC2016
    edit_machine_config '
        .runtimes |= with_entries(select(.value.path != $program))
        | if .runtimes == {} then del(.runtimes) else . end' "$1"
}

engine_has_runtime() { docker -H "$MACHINE_ENGINE" info --format '{{json .Runtimes}}' | grep -q "\"$1\""; }

# edit_machine_config FILTER PROGRAM: replaces the file in one step and has the engine read it.
edit_machine_config() {
    local new
    mkdir -p "$(dirname "$MACHINE_CONFIG")"
    new=$(jq --arg program "$2" "$1" "$MACHINE_CONFIG" 2>/dev/null || { [ ! -s "$MACHINE_CONFIG" ] && jq -n --arg program "$2" "$1"; }) || {
        say "$MACHINE_CONFIG is not valid JSON; nothing was changed"
        return 1
    }
    if [ "$new" = '{}' ]; then
        rm -f "$MACHINE_CONFIG"
    else
        say "$new" >"$MACHINE_CONFIG.new" && mv "$MACHINE_CONFIG.new" "$MACHINE_CONFIG"
    fi
    if has_systemd && systemctl is-active --quiet docker; then
        systemctl reload docker
    else
        kill -HUP "$(cat /var/run/docker.pid)"
    fi
}
