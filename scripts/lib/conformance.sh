# shellcheck shell=bash
# The frame of scripts/conformance: worlds for the suites, results, the table, and what is judged.
#
# A suite is a file conformance-SUITE.sh that defines
#   SUITE_PACKAGES            array: Debian packages that it needs on the host
#   SUITE_REFERENCES          those of the runtimes by which ours is judged, if not by runc alone
#   SUITE_RECIPE              array: the files that decide what is built
#   suite_build DIRECTORY     fetches and builds what is needed, in steps (common.sh); once it is there,
#                             it is kept under the name $SUITE_DIR
#   suite_runtime NAME        if not as below: prints the path of one of the runtimes, or nothing if the
#                             suite has no use for it
#   suite_command             array: the program that is run in the world, with four arguments more:
#                             the suite's directory, the runtime, a directory for its results, and
#                             the filter (may be empty). It leaves a file `cases` there, lines of
#                             pass|fail|skip, a tab, and `GROUP: CASE`.
#
# Results stay in $CONFORMANCE_DIR/SUITE/VIEW/RUNTIME.
# shellcheck disable=SC2154 # set by scripts/conformance and the suite

CONFORMANCE_DIR=${CONFORMANCE_DIR:-/var/tmp/sysbox-conformance}
# In the order of the table. The first is the one that ours is judged by.
CONFORMANCE_RUNTIMES=(runc crun sysbox-runc sysbox-runc-keep)

conformance_suites() {
    find "$TOP/scripts/lib" -name 'conformance-*.sh' -printf '%f\n' | sed 's/^conformance-//; s/\.sh$//' | sort | xargs
}

suite_runtime() {
    case $1 in
        runc | crun) command -v "$1" ;;
        sysbox-runc) say "$TARGET/debug/sysbox-runc" ;;
        sysbox-runc-keep) say "$TOP/scripts/lib/conformance-keep" ;;
    esac
}

# Sees that the suite is there, and sets SUITE_DIR.
suite_prepare() {
    local recipe work
    recipe=$(cat "${SUITE_RECIPE[@]}" | sha256sum | cut -c 1-12)
    SUITE_DIR=$IMAGE_CACHE/conformance-$suite-$recipe
    [ ! -d "$SUITE_DIR" ] || return 0
    mkdir -p "$IMAGE_CACHE"
    rm -rf "$IMAGE_CACHE/conformance-$suite"-*
    work=$(mktemp -d "$IMAGE_CACHE/work.XXXXXX")
    STEP_LOG=$work/log
    suite_build "$work"
    chmod 755 "$work"
    mv "$work" "$SUITE_DIR"
}

# Reads $suite, $views, $wanted, $filter of the script.
conformance_main() {
    local view failed=0
    # Suites use the same names for containers and cgroups in each run. What runs in a world does not
    # hold the lock: it may outlive this.
    exec 9>/run/sysbox-conformance.lock
    flock --nonblock 9 || die "another run of scripts/conformance is under way" "wait until it is over"
    install_packages "${SUITE_PACKAGES[@]}"
    need_rust
    cargo build --quiet --manifest-path "$TOP/Cargo.toml" --workspace
    suite_prepare
    [ "${#views[@]}" -gt 0 ] || { views=(v2); [ "$(machine_view)" = v2 ] || views=(hybrid v2); }
    for view in "${views[@]}"; do
        run_suite "$view" || failed=1
    done
    for view in "${views[@]}"; do
        conformance_report "$view" || failed=1
    done
    exit "$failed"
}

# Runs the suite in one view with each runtime, one after the other.
run_suite() {
    local view=$1 runtime path results world=$CONFORMANCE_DIR/world-$1 own=()
    for runtime in "${wanted[@]}"; do
        case $runtime in *=*) own+=("$runtime") ;; esac
    done
    world_down "$world" 2>/dev/null || true
    # shellcheck disable=SC2064
    trap "world_down '$world'" EXIT
    trap 'exit 130' INT TERM
    world_make "$view" "$world" "$TARGET/debug"
    world_hold "$world" 9>&-
    # No engine: the suites call the runtime themselves.
    world_start "$world" sysbox-fs sysbox-mgr 9>&-
    for runtime in "${CONFORMANCE_RUNTIMES[@]}" "${own[@]}"; do
        path=$(runtime_path "$runtime")
        [ -n "$path" ] || continue
        results=$CONFORMANCE_DIR/$suite/$view/${runtime%%=*}
        rm -rf "$results"
        mkdir -p "$results"
        say "==== $suite, view $view, ${runtime%%=*}"
        world_enter "$world" "${suite_command[@]}" "$SUITE_DIR" "$path" "$results" "$filter" 9>&- || return 1
        [ -s "$results/cases" ] || die "no group of the suite $suite has '$filter' in its name" "its groups are in $SUITE_DIR"
    done
    trap - EXIT
    world_down "$world"
}

# runtime_path NAME[=PATH]: prints the path if this runtime is to be run.
runtime_path() {
    local entry
    case $1 in *=*) realpath "${1#*=}"; return ;; esac
    if [ "${#wanted[@]}" -eq 0 ]; then suite_runtime "$1"; return; fi
    for entry in "${wanted[@]}"; do
        [ "$entry" != "$1" ] || { suite_runtime "$1"; return; }
    done
}

# conformance_report VIEW: the table of a view, then the cases that runc passes and ours fails, with the
# reasons. Fails if the list in tests/conformance does not say what was seen.
conformance_report() {
    local view=$1 dir=$CONFORMANCE_DIR/$suite/$1 runtime files=()
    for runtime in "${CONFORMANCE_RUNTIMES[@]}"; do
        [ ! -f "$dir/$runtime/cases" ] || files+=("$dir/$runtime/cases")
    done
    [ "${#files[@]}" -gt 0 ] || return 0
    say
    say "==== $suite, view $view: cases that pass (and fail)"
    awk -v view="$view" -v references="${SUITE_REFERENCES:-runc}" -v filter="$filter" -f "$TOP/scripts/lib/conformance.awk" \
        "$TOP/tests/conformance/$suite.txt" "${files[@]}"
}
