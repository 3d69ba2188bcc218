# shellcheck shell=bash
# Everything on every machine, and a table of it. Needs common.sh.

MATRIX_SUITES=(bookworm trixie testing)

# What is done in each machine: verbs of scripts/machine. The quick start is for Debian 12.
declare -A MATRIX_TASKS=([bookworm]='test quickstart e2e' [trixie]='test e2e' [testing]='test e2e')

# run_matrix DIRECTORY: leaves the output of each task there as SUITE-TASK. Hours without KVM.
run_matrix() {
    local suite task
    for suite in "${MATRIX_SUITES[@]}"; do
        for task in ${MATRIX_TASKS[$suite]}; do
            say "==== $task on $suite"
            "$TOP/scripts/machine" "$task" "$suite" 2>&1 | tee "$1/$suite-$task" || true
        done
    done
}

# known_failures: the table in docs/packaging.md, as lines like `bookworm step kill_sysbox_fs`.
# shellcheck disable=SC2016
known_failures() { sed -n 's/^| \([a-z]*\) | `\([a-z0-9_: -]*\)` |.*/\1 \2/p' "$TOP/docs/packaging.md"; }

# matrix_outcomes DIRECTORY: lines of suite, outcome, kind, group, name. A task that did not get to its
# end counts as a failed test, named by the task.
matrix_outcomes() {
    local suite task
    for suite in "${MATRIX_SUITES[@]}"; do
        for task in ${MATRIX_TASKS[$suite]}; do
            sed -n "s/^\(ok\|FAILED\) *\([a-z0-9]*\) \([^ ]*\) (.*/$suite \1 \2 \3/p" "$1/$suite-$task" 2>/dev/null || true
            if ! grep -qs '^test result:' "$1/$suite-$task" || grep -q '^the machine ' "$1/$suite-$task"; then
                say "$suite FAILED $task did-not-end"
            fi
        done
    done
}

# show_matrix DIRECTORY: a row for each group of tests, a column for each machine, then the red cells.
# Fails if there are any but those that the documentation lists.
show_matrix() {
    matrix_outcomes "$1" >"$1/outcomes"
    known_failures >"$1/known"
    awk -v suites="${MATRIX_SUITES[*]}" '
        FILENAME ~ /known$/ { known[$0] = 1; next }
        {
            split($4, path, "::")
            row = $3 (index($4, "::") ? " " path[1] : "")
            if (!(row in seen)) { seen[row] = 1; rows[++count] = row }
            all[$1, row]++
            if ($2 == "ok") { good[$1, row]++; next }
            name = $1 " " $3 " " $4
            red[++reds] = name (name in known ? "   (known, see docs/packaging.md)" : "")
            if (!(name in known)) bad = 1
        }
        END {
            columns = split(suites, suite, " ")
            printf "%-24s", ""
            for (i = 1; i <= columns; i++) printf "%12s", suite[i]
            print ""
            for (r = 1; r <= count; r++) {
                printf "%-24s", rows[r]
                for (i = 1; i <= columns; i++) {
                    key = suite[i] SUBSEP rows[r]
                    printf "%12s", (key in all) ? (good[key] + 0) "/" all[key] : "-"
                }
                print ""
            }
            for (r = 1; r <= reds; r++) print "red: " red[r]
            exit bad
        }' "$1/known" "$1/outcomes"
}
