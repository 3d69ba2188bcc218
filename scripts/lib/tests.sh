# shellcheck shell=bash
# The programs of tests/, which need a world around them.

# The container images that they use (image.sh).
# shellcheck disable=SC2034
TEST_IMAGES=(busybox bookworm trixie engines)

# test_program NAME: builds one of them (e2e, attack), without running it, and prints its path.
test_program() {
    cargo test --quiet -p sysbox-tests --test "$1" --no-run --message-format=json |
        jq --raw-output 'select(.executable != null) | .executable'
}

# all_tests: every test of theirs, as `program name`.
all_tests() {
    local program
    for program in e2e attack; do
        "$(cd "$TOP" && test_program "$program")" --list --format terse | sed -n "s/^\(.*\): test\$/$program \1/p"
    done
}

# main_job: those that show the main job, in the same form.
main_job() { sed -n 's/^[a-z]/e2e &/p' "$TOP/tests/machine/main-job"; }

# Fails for a name in the list of the main job that no test has (any more).
check_main_job() {
    local unknown
    unknown=$(main_job | grep -vxF -f <(all_tests)) || return 0
    printf 'tests/machine/main-job has names that no test has:\n%s\n' "$unknown"
    return 1
}
