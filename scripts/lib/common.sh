# shellcheck shell=bash
# What every script here needs: messages, steps with progress, waiting with a deadline.
# Sourced by bash scripts that run with `set -euo pipefail`.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Where cargo puts what it builds.
TARGET=${CARGO_TARGET_DIR:-$TOP/target}

say() { printf '%s\n' "$*"; }

# die MESSAGE [REMEDY]: ends the script; the remedy says what the user can do.
die() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '       %s\n' "$2" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "$0 needs root: it starts daemons and makes mounts" "run it again with sudo"
}

# wait_until SECONDS COMMAND...: runs the command until it succeeds; fails after SECONDS, or as many times
# that as tests on a slow machine allow themselves.
wait_until() {
    local deadline=$((SECONDS + $1 * ${SYSBOX_TEST_SLOWNESS:-1}))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# step TEXT REMEDY COMMAND...: runs the command with its output in $STEP_LOG, shows that it is alive
# and how long it took; on failure shows the end of the log and the remedy, and ends the script.
step() {
    local text=$1 remedy=$2 start=$SECONDS shown=0 elapsed status=0
    shift 2
    printf '%s ...' "$text"
    "$@" >"$STEP_LOG" 2>&1 </dev/null &
    local child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        elapsed=$((SECONDS - start))
        if [ -t 1 ]; then
            [ "$elapsed" -le "$shown" ] || printf '\r%s ... %d s' "$text" "$elapsed"
            shown=$elapsed
        elif [ $((elapsed - shown)) -ge 15 ]; then
            printf ' %d s ...' "$elapsed"
            shown=$elapsed
        fi
    done
    wait "$child" || status=$?
    if [ "$status" -ne 0 ]; then
        printf ' FAILED\n'
        tail -n 25 "$STEP_LOG" | sed 's/^/    | /' >&2
        die "this step failed: $text (all of its output: $STEP_LOG)" "$remedy"
    fi
    [ -t 1 ] && printf '\r%s ...' "$text"
    printf ' done (%d s)\n' $((SECONDS - start))
}

# stop_pid PID SECONDS: SIGTERM, then SIGKILL once the time is over. A process that is gone is fine.
stop_pid() {
    kill -TERM "$1" 2>/dev/null || return 0
    wait_until "$2" process_gone "$1" || kill -KILL "$1" 2>/dev/null || true
    wait_until 5 process_gone "$1"
}

# A zombie counts as gone: its parent only has not read its exit status yet.
process_gone() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 0
    [ -z "$state" ] || [ "$state" = Z ] || [ "$state" = X ]
}
