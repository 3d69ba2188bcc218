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
            rm -f "$MACHINE_PIDS/$daemon"
            setsid bash -c 'echo $$ >"$1"; exec "$2"' - "$MACHINE_PIDS/$daemon" "$bin/$daemon" \
                >"/var/log/$daemon.log" 2>&1 </dev/null &
            wait_until 5 test -s "$MACHINE_PIDS/$daemon"
        fi
        wait_until 15 machine_daemon_settled "$daemon" || true
        machine_daemon_runs "$daemon" && [ -S "/run/sysbox/$(daemon_socket "$daemon")" ] || {
            tail -n 15 "/var/log/$daemon.log" 2>/dev/null || journalctl --no-pager --lines 15 --unit "$daemon"
            return 1
        }
    done
}

daemon_socket() { case $1 in sysbox-fs) say sysfs.sock ;; *) say sysmgr.sock ;; esac; }

# It answers, or it has ended already.
machine_daemon_settled() { [ -S "/run/sysbox/$(daemon_socket "$1")" ] || ! machine_daemon_runs "$1"; }

machine_daemon_runs() {
    local pid
    if has_systemd && systemctl is-active --quiet "$1"; then return 0; fi
    pid=$(cat "$MACHINE_PIDS/$1" 2>/dev/null) && ! process_gone "$pid"
}

# Ends the daemons that start_machine_daemons started, and removes what they keep: no container of
# theirs may be left. Installed services stay.
stop_machine_daemons() {
    local daemon started=no
    for daemon in sysbox-mgr sysbox-fs; do
        if has_systemd && [ "$(systemctl show -P Transient "$daemon" 2>/dev/null)" = yes ]; then
            started=yes
            systemctl stop "$daemon"
        elif [ -e "$MACHINE_PIDS/$daemon" ]; then
            started=yes
            stop_pid "$(cat "$MACHINE_PIDS/$daemon")" 20
        fi
    done
    [ "$started" = no ] || rm -rf "$MACHINE_PIDS" /run/sysbox /var/lib/sysbox /var/log/sysbox-{mgr,fs}.log
}

# Names of the machine's containers that were made with the runtime.
machine_containers() {
    docker -H "$MACHINE_ENGINE" ps --all --quiet |
        xargs --no-run-if-empty docker -H "$MACHINE_ENGINE" inspect --format '{{.HostConfig.Runtime}} {{.Name}}' |
        sed -n 's#^sysbox\(-runc\)\? /##p'
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
        .runtimes = ((.runtimes // {}) | with_entries(select(.value.path != $program)))
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
