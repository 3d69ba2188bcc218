# shellcheck shell=bash
# What the steps share. Everything waits for a condition; the limits only say when to give up, and are
# generous because the processor is emulated.

# shellcheck disable=SC2034
SYSTEM=sysbox-system:bookworm
# shellcheck disable=SC2034
SMALL=sysbox-busybox
# The container that most steps look at; `main_job` starts it.
MAIN=main

say() { printf '%s\n' "$*"; }

# summary PASSED FAILED: in the words of Rust's test programs, whose counts scripts/test adds up.
summary() { say "test result: $([ "$2" -eq 0 ] && say ok || say FAILED). $1 passed; $2 failed"; }

# fail TEXT: ends the step.
fail() {
    say "error: $*"
    exit 1
}

# equal WHAT WANTED FOUND
equal() { [ "$2" = "$3" ] || fail "$1: wanted '$2', found '$3'"; }

# fails COMMAND...: the command must fail (bash's `!` would not end the step).
fails() {
    if "$@"; then fail "this succeeded: $*"; fi
}

# eventually SECONDS COMMAND...: runs the command until it succeeds.
eventually() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "still not so after waiting: $*"
        sleep 0.5
    done
}

inside() { docker exec "$MAIN" "$@"; }

main_pid() { systemctl show --property MainPID --value "$1"; }

# Directory of the main container's cgroup.
main_cgroup() {
    local pid
    pid=$(docker inspect --format '{{.State.Pid}}' "$MAIN")
    # Init lives in a leaf of it.
    say "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup" | sed 's#/init\.scope$##')"
}

# shellcheck disable=SC2016
meminfo_total() { inside awk '/^MemTotal:/ { print $2 }' /proc/meminfo; }

# An inner container says hello; proc and sysfs of it are mounted by the manager.
inner_hello() { inside docker run --rm sysbox-busybox sh -c 'grep -q ^MemTotal /proc/meminfo && echo hello'; }

# What must hold for the main container whatever happens to the daemons.
main_is_well() {
    equal 'its init' "$(cat results/main-pid)" "$(docker inspect --format '{{.State.Pid}}' "$MAIN")"
    equal 'its memory' 524288 "$(meminfo_total)"
    equal 'its Docker' hello "$(inner_hello)"
}
