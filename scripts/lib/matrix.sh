# shellcheck shell=bash
# Tests on every machine, and a table of them. Needs common.sh, tests.sh and machine-task.sh.
#
# A directory keeps what the machines printed, a file a machine and task. It is all that is needed to go
# on after an interruption, and to print the table: of each test, what was printed last counts.

MATRIX_SUITES=(bookworm trixie testing)

# matrix_tasks SUITE: what is done in it: verbs of scripts/machine. The quick start is for Debian 12.
matrix_tasks() { say test; [ "$1" != bookworm ] || say quickstart; say e2e; }

# matrix_wanted TASK WHICH: what the task is to try, as `kind name`; WHICH is `all` or `main-job`.
matrix_wanted() {
    case $1 in
        test) machine_steps | sed 's/^/step /' ;;
        quickstart) say 'quickstart beside-docker' ;;
        e2e) if [ "$2" = all ]; then all_tests; else main_job; fi ;;
    esac
}

# matrix_outcomes DIRECTORY SUITE TASK: what is known so far, as `ok|cannot|FAILED kind name`.
matrix_outcomes() {
    [ -e "$1/$2-$3" ] || return 0
    sed -n 's/^\(ok\|cannot\|FAILED\)  *\([a-z0-9]* [^ ]*\) (.*/\1 \2/p' "$1/$2-$3" |
        awk '{ last[$2 " " $3] = $1 } END { for (test in last) print last[test], test }'
}

# run_matrix DIRECTORY WHICH: tries what has not passed yet. Hours without KVM.
run_matrix() {
    local dir=$1 which=$2 suite task todo
    for suite in "${MATRIX_SUITES[@]}"; do
        for task in $(matrix_tasks "$suite"); do
            matrix_outcomes "$dir" "$suite" "$task" | sed -n 's/^\(ok\|cannot\) //p' >"$dir/passed"
            mapfile -t todo < <(matrix_wanted "$task" "$which" | grep -vxF -f "$dir/passed" | cut -d ' ' -f 2)
            [ "${#todo[@]}" -gt 0 ] || continue
            # Steps build on each other: all of them, or none.
            [ "$task" = e2e ] || todo=()
            say "==== $task on $suite"
            "$TOP/scripts/machine" "$task" "$suite" "${todo[@]}" 2>&1 | tee -a "$dir/$suite-$task" || true
        done
    done
}

# known_failures: the table in docs/packaging.md, as lines like `bookworm step kill_sysbox_fs`.
# shellcheck disable=SC2016
known_failures() { sed -n 's/^| \([a-z]*\) | `\([a-z0-9_: -]*\)` |.*/\1 \2/p' "$TOP/docs/packaging.md"; }

# matrix_results DIRECTORY WHICH: lines of outcome, suite, kind and name, for all that was to be tried.
matrix_results() {
    local suite task
    for suite in "${MATRIX_SUITES[@]}"; do
        for task in $(matrix_tasks "$suite"); do
            { matrix_outcomes "$1" "$suite" "$task"; matrix_wanted "$task" "$2" | sed 's/^/missing /'; } |
                awk -v suite="$suite" '
                    $1 != "missing" { outcome[$2 " " $3] = $1 }
                    $1 == "missing" {
                        test = $2 " " $3
                        if (!(test in outcome)) outcome[test] = $1
                        print outcome[test], suite, test
                    }'
        done
    done
}

# show_matrix DIRECTORY WHICH: a row for each group of tests, a column for each machine, then what is red.
# Fails if there are red tests but those that the documentation lists.
show_matrix() {
    matrix_results "$1" "$2" >"$1/results"
    known_failures >"$1/known"
    awk -v suites="${MATRIX_SUITES[*]}" '
        FILENAME ~ /known$/ { known[$0] = 1; next }
        {
            split($4, path, "::")
            row = $3 (index($4, "::") ? " " path[1] : "")
            if (!(row in seen)) { seen[row] = 1; rows[++count] = row }
            all[$2, row]++
            name = $2 " " $3 " " $4
            if ($1 == "ok") good[$2, row]++
            else if ($1 == "cannot") lines[++red] = "cannot run there: " name
            else {
                lines[++red] = ($1 == "missing" ? "was not run: " : "red: ") name
                if (name in known) lines[red] = lines[red] "   (known, see docs/packaging.md)"; else bad = 1
            }
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
            for (r = 1; r <= red; r++) print lines[r]
            exit bad
        }' "$1/known" "$1/results"
}
